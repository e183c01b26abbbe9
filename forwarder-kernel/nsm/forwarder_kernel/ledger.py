"""The wires of an owner: those of this process, and unclaimed ones of an earlier process.

Used in the kernel's thread only.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence

from nsm.chains.core import Conflict, FileKey
from nsm.chains.forwarding.wires import Wire
from nsm.chains.model.segment_ids import is_made_for
from nsm.chains.netlink import Address, Namespace, Namespaces, reading
from nsm.chains.netlink.processes import Processes

from .live_wire import LiveWire
from .owned import Owned, OwnedLink, find, find_in

_LONGEST_ALIAS = 255
_MOST_KNOWN = 4096
"""The number of namespaces remembered as searched; beyond it all are searched again."""


class Ledger:
    """The wires of `owner`. Connections have `claim_within` seconds to claim what an earlier process made for them."""

    def __init__(self, owner: str, claim_within: float) -> None:
        self.mark = f"nsm {owner} "
        """How the aliases of this owner begin."""
        self._live: dict[str, LiveWire] = {}
        self._former: dict[str, list[OwnedLink]] = {}
        self._reached: dict[tuple[FileKey, Address], set[str]] = {}
        """By which wires a client's address is reached from an endpoint's namespace."""
        self._searched: set[FileKey] = set()
        self._keys: dict[int, FileKey] = {}
        self._claim_until = time.monotonic() + claim_within
        self.processes = Processes()

    def alias_of(self, connection_id: str) -> str:
        """The alias of both ends; the kernel takes 255 bytes, so a long id is replaced by its digest."""
        alias = f"{self.mark}{connection_id}"
        if len(alias.encode()) <= _LONGEST_ALIAS:
            return alias
        return f"{self.mark}{hashlib.sha256(connection_id.encode()).hexdigest()}"

    def id_in(self, alias: str) -> str:
        """The connection's id, or its digest."""
        return alias.removeprefix(self.mark)

    @property
    def may_be_claimed(self) -> bool:
        """Whether clients of wires of an earlier process may not have had the time to request them."""
        return time.monotonic() < self._claim_until

    # --- what there is

    def live(self, alias: str) -> LiveWire | None:
        """The wire that this process has for a connection."""
        return self._live.get(alias)

    def has(self, live: LiveWire) -> bool:
        """Whether a wire was not removed yet; otherwise its namespaces may be closed."""
        return self._live.get(live.alias) is live

    def former(self, alias: str) -> list[OwnedLink]:
        """An earlier process's unclaimed wire of a connection."""
        return self._former.get(alias, [])

    def key_of(self, link: OwnedLink) -> FileKey | None:
        """Device and inode of a link's namespace, where a process was seen in it."""
        return self._keys.get(link.number)

    def is_former(self, alias: str) -> bool:
        """Whether a link is this owner's, and of no connection of this process."""
        return alias.startswith(self.mark) and alias not in self._live

    def look(self, spaces: Namespaces) -> list[Owned]:
        """All links of this owner in the kernel; those without a connection here count as former from now on."""
        pids = self.processes.look()
        found = find(spaces, pids, self.mark)
        self._keys = dict(found.keys)
        by_alias: dict[str, list[OwnedLink]] = {alias: [] for alias in self._live}
        for link in found.links:
            by_alias.setdefault(link.alias, []).append(link)
        self._former = {alias: links for alias, links in by_alias.items() if alias not in self._live}
        return [self._owned(alias, links, pids) for alias, links in by_alias.items()]

    def search(self, spaces: Namespaces, namespace: Namespace) -> None:
        """Find an earlier process's links in a namespace that is used for the first time."""
        if namespace.key in self._searched:
            return
        if len(self._searched) >= _MOST_KNOWN:
            self._searched.clear()
        self._searched.add(namespace.key)
        former = [link for link in find_in(spaces, namespace, self.mark) if link.alias not in self._live]
        for link in former:
            if link not in self._former.setdefault(link.alias, []):
                self._former[link.alias].append(link)
        if former:
            self._note_reached(namespace, {link.index: link.alias for link in former})

    # --- what changes

    def add(self, live: LiveWire) -> None:
        """A wire was made, adopted or changed."""
        self._live[live.alias] = live
        self._former.pop(live.alias, None)
        self._forget_reached(live)
        live.reached = tuple(_reached_by(live, live.wire))
        for key in live.reached:
            self._reached.setdefault(key, set()).add(live.alias)

    def discard(self, live: LiveWire) -> None:
        """A wire was removed."""
        if self.has(live):
            del self._live[live.alias]
            self._forget_reached(live)

    def take_former(self, alias: str) -> list[OwnedLink]:
        """An earlier process's wire of a connection, now the caller's to adopt or to remove."""
        return self._former.pop(alias, [])

    # --- one address, one owner

    def in_the_way(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> list[str]:
        """The aliases of other wires by which the endpoint of `wire` reaches its client's address, and which may go.

        One client may have an address on several wires, as those of an awareness group do. Raises `Conflict` for a wire
        of another client.
        """
        keys = list(_reached_by(live, wire))
        aliases = {alias: key[1] for key in keys for alias in self._reached.get(key, ()) if alias != live.alias}
        return [alias for alias, address in aliases.items() if self._may_go(spaces, live, alias, address)]

    def is_same_client(self, alias: str, live: LiveWire) -> bool:
        """Whether a wire of this process is of the same connection, as its client sees it."""
        other = self._live.get(alias)
        return other is not None and other.client.is_same(live.client)

    def _may_go(self, spaces: Namespaces, live: LiveWire, alias: str, address: Address) -> bool:
        """Whether a wire with the same address may be removed for this one, or else can stay beside it."""
        other = self._live.get(alias)
        if other is not None:
            if other.is_leaving:
                return False
            if other.client.is_same(live.client):
                return True
            is_own = bool(live.client.owner) and live.client.owner == other.client.owner
            if is_own or _places_of_client(other) & _places_of_client(live):
                return False
        elif alias not in self._former or self._shares_place(spaces, live, alias):
            return False
        elif not self.may_be_claimed or is_made_for(live.client.owner, self.id_in(alias)):
            return True
        where, whose = live.ends[-1].namespace.where, self.id_in(alias)
        raise Conflict(f"{address} is another client's in {where}, by connection {whose}: the endpoint gave it twice")

    def _shares_place(self, spaces: Namespaces, live: LiveWire, alias: str) -> bool:
        """Whether the client's end of a former wire is in the namespace of this one's."""
        places = [end for end, each in zip(live.ends, live.wire.kernel_ends, strict=True) if not each.is_endpoints]
        numbers = {end.namespace.number for end in places}
        return any(link.namespace in numbers for link in self._former[alias])

    def _note_reached(self, namespace: Namespace, aliases: dict[int, str]) -> None:
        for route in reading.routes_of(namespace.socket, aliases):
            if route.prefix.num_addresses == 1:
                key = namespace.key, route.prefix.network_address
                self._reached.setdefault(key, set()).add(aliases[route.index])

    def _forget_reached(self, live: LiveWire) -> None:
        for key in live.reached:
            aliases = self._reached.get(key, set())
            aliases.discard(live.alias)
            if not aliases:
                self._reached.pop(key, None)

    # --- unclaimed wires

    def _owned(self, alias: str, links: Sequence[OwnedLink], pids: Collection[FileKey]) -> Owned:
        """A namespace in which no process was ever seen may have one that is not visible here: it counts as used."""
        is_live = alias in self._live
        return Owned(self.id_in(alias), tuple(links), is_live, is_live or not self._is_dead(links, pids))

    def _is_dead(self, links: Sequence[OwnedLink], pids: Collection[FileKey]) -> bool:
        return any(link.namespace is not None and self._has_no_process(link.number, pids) for link in links)

    def _has_no_process(self, number: int, pids: Collection[FileKey]) -> bool:
        key = self._keys.get(number)
        return key not in pids if key is not None else self.processes.sees_all


def _places_of_client(live: LiveWire) -> set[FileKey]:
    """The client's namespace, if it is on this node."""
    return {
        end.key for end, described in zip(live.ends, live.wire.kernel_ends, strict=True) if not described.is_endpoints
    }


def _reached_by(live: LiveWire, wire: Wire) -> Iterator[tuple[FileKey, Address]]:
    """The client's addresses, with the namespace of the endpoint that reaches them by this wire."""
    for end, described in zip(live.ends, wire.kernel_ends, strict=True):
        if described.is_endpoints:
            yield from ((end.key, address) for address in described.settings.opposite)
