"""Makes, adopts and changes wires: the dataplane's part in the kernel's thread."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nsm.chains.core import Conflict, FileKey, MeshError
from nsm.chains.elements.underlay import read as read_underlay
from nsm.chains.forwarding.dataplane import Client
from nsm.chains.forwarding.protect_node import check_own_namespace
from nsm.chains.forwarding.sides import KernelInterface, Side
from nsm.chains.forwarding.wires import Route, Wire
from nsm.chains.model.networks import Networks
from nsm.chains.model.traffic import Traffic
from nsm.chains.model.wireguard import WireguardSettings
from nsm.chains.netlink import (
    Link,
    Message,
    Namespace,
    Namespaces,
    NetlinkError,
    delete_link,
    delete_link_there,
    rename,
    set_mtu,
    set_up,
)

from . import default_routes, end_changes
from .devices import Device
from .ledger import Ledger
from .live_wire import LiveEnd, LiveWire
from .owned import OWN, OwnedLink
from .policy_tables import PolicyLink, install
from .removal import GONE, removal_of

_FIRST_INDEX, _INDEXES = 1 << 20, 1 << 29
_INDEX_TRIES = 4
_DEFAULTS: tuple[Route, ...] = ((ipaddress.ip_network("0.0.0.0/0"), None), (ipaddress.ip_network("::/0"), None))
_SETTLING_AT_ONCE = 0.01
"""Seconds for which a wire is waited for while others wait too."""


class WireMaker:
    """Makes the wires in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def create(self, spaces: Namespaces, wire: Wire, alias: str, device: Device, client: Client) -> LiveWire:
        """See `Dataplane.create`."""
        begin = time.perf_counter()
        with contextlib.ExitStack() as undo:
            namespaces = []
            for place in wire.interfaces:
                namespaces.append(spaces.take(place.path))
                undo.callback(spaces.give, namespaces[-1])
                spaces.identify(namespaces[-1])
                self._ledger.search(spaces, namespaces[-1])
            _protect_node(spaces.own, wire, namespaces)
            device.take(spaces.own)
            undo.callback(device.give, spaces.own)
            live = LiveWire(wire, _new_ends(namespaces, wire, alias, device), alias, device, client=client)
            self._make_way(spaces, live, wire)
            self._adopt_or_make(spaces, live)
            undo.pop_all()
        for end in live.ends:
            spaces.identify(end.namespace)
            end.number, end.handle = end.namespace.number, end.namespace.handle
        self._ledger.add(live)
        live.seconds = time.perf_counter() - begin
        return live

    def change(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> None:
        """See `Dataplane.change`."""
        _protect_node(spaces.own, wire, [end.namespace for end in live.ends])
        self._make_way(spaces, live, wire)
        before = [settings for _, _, settings in live.sides()]
        for (end, mac, after), now in zip(live.sides(wire), before, strict=True):
            messages = end_changes.differences(end.namespace.socket, end.index, wire, now, after, mac)
            if wire.mtu and wire.mtu != live.wire.mtu:
                messages.insert(0, set_mtu(end.index, wire.mtu))
            if after.proxy_arp != now.proxy_arp:
                messages.insert(0, set_up(end.index, live.alias, proxy_arp=after.proxy_arp))
            _apply(live, end, messages)
            families = {prefix.version for prefix, _ in after.defaults}
            gone = [route for route in now.defaults if route[0].version not in families]
            default_routes.remove(end.namespace.socket, end.index, gone)
        if wire.mtu != live.wire.mtu:
            _refuse_advertisements(live)  # below 1280 there was no IPv6
        live.wire = wire
        self._ledger.add(live)
        settle(live, _SETTLING_AT_ONCE)

    def remake(self, spaces: Namespaces, live: LiveWire) -> bool:
        """See `Dataplane.remake`."""
        if live.device.process is not None or not self._ledger.has(live):
            return False
        with contextlib.ExitStack() as undo:
            namespaces = []
            for end in live.ends:
                known = None if end.is_loose else end.namespace
                namespace = undo.enter_context(spaces.in_reach(known, end.handle, end.key, end.number))
                if namespace is None:
                    return False
                namespaces.append(namespace)
                end.renamed = ""
            held = LiveWire(live.wire, tuple(map(_held, live.ends, namespaces)), live.alias, live.device)
            _protect_node(spaces.own, held.wire, namespaces)
            for end in held.ends:  # one may be left, or have been moved elsewhere
                end.namespace.socket.apply([delete_link(end.index)], ignore=GONE)
            live.device.make(spaces.own, namespaces[0], held.wire, [end.link for end in held.ends])
            _finish(held)
        return True

    def _exists(self, live: LiveWire) -> bool:
        """Whether a wire that is held is still there: its namespaces' owners may have removed it."""
        end = live.ends[0]
        return self._ledger.has(live) and end.namespace.socket.has_link(end.index)

    def traffic(self, spaces: Namespaces, live: LiveWire) -> tuple[Traffic | None, Traffic | None]:
        """See `Dataplane.traffic`."""
        ends = iter(live.ends if self._ledger.has(live) else ())  # else its namespaces may be closed by now
        there = [next(ends, None) if isinstance(side, KernelInterface) else None for side in live.wire.sides]
        client, endpoint = (_passed(spaces.own, end) if end is not None else None for end in there)
        return client, endpoint

    def let_go(self, spaces: Namespaces, live: LiveWire) -> None:
        """See `Dataplane.let_go`."""
        if not self._ledger.has(live):
            return
        for end in live.ends:
            if not end.is_loose and end.number is not None:  # without a number it could not be removed any more
                end.is_loose = True
                spaces.give(end.namespace)

    def resume(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> bool:
        """See `Dataplane.resume`."""
        has_moved = live.is_loose or live.wire.interfaces != wire.interfaces
        if has_moved and not self._hold_again(spaces, live, wire):
            return False
        return live.wire.sides == wire.sides and self._exists(live)

    def _hold_again(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> bool:
        """Open the namespaces of a wire at its places in `wire`, with other paths; returns whether the wire exists."""
        if not self._ledger.has(live) or len(wire.interfaces) != len(live.ends):
            return False
        for end, place in zip(live.ends, wire.interfaces, strict=True):
            namespace = spaces.take(place.path)
            is_there = _is_end(namespace, end, live.alias) if end.is_loose else namespace is end.namespace
            if is_there and place.name != end.place.name:
                is_there, end.renamed = _rename(namespace, end.index, place.name), ""
            if not end.is_loose or not is_there:
                spaces.give(namespace)
            if not is_there:
                return False
            end.namespace, end.place, end.is_loose = namespace, place, False
            namespace.number, namespace.handle = end.number, end.handle
        live.wire = live.wire.moved(*map(_moved, live.wire.sides, wire.sides))
        return True

    def forget(self, spaces: Namespaces, live: LiveWire) -> None:
        """Release everything that a removed wire had besides its links; a second call does nothing."""
        if not self._ledger.has(live):
            return
        self._ledger.discard(live)
        live.device.give(spaces.own)
        for end, _, settings in live.sides():
            if settings.defaults:
                self._remove_default_routes(spaces, end, settings.defaults)
            if not end.is_loose:
                spaces.give(end.namespace)

    def take_former(self, spaces: Namespaces, aliases: Sequence[str]) -> list[OwnedLink]:
        """The remains of an earlier process's wires, without their rules: the caller removes the links."""
        former = [link for alias in aliases for link in self._ledger.take_former(alias)]
        links = [link for link in former if _is_there(spaces, link)]
        for link in links:
            self._remove_rules(spaces, link)
        return links

    def former_wireguard(self, spaces: Namespaces, alias: str) -> WireguardSettings | None:
        """What an earlier process set the kernel's WireGuard of a wire to."""
        for link in self._ledger.former(alias):
            if link.kind == "wireguard":
                with self._opened(spaces, self._ledger.key_of(link)) as namespace:
                    return namespace.wireguard().settings(link.index) if namespace is not None else None
        return None

    def _adopt_or_make(self, spaces: Namespaces, live: LiveWire) -> None:
        """Provide the links of a wire: existing ones of its connection are the wire itself, or its former version."""
        former = self._ledger.former(live.alias)
        if former and self._adopt(live):
            kept = {end.index for end in live.ends}
            self._delete(spaces, [link for link in self._ledger.take_former(live.alias) if link.index not in kept])
            return
        left = self.take_former(spaces, [live.alias])
        self._delete(spaces, [link for link in left if link.index != live.device.index])
        for _ in range(_INDEX_TRIES):
            try:
                live.device.make(spaces.own, live.ends[0].namespace, live.wire, [end.link for end in live.ends])
            except NetlinkError as error:
                if not self._remove_leftovers(spaces, live):
                    _explain(error, live.device, live.ends)
                    _choose_indexes(live)
                continue
            _finish(live)
            return
        raise Conflict(f"found no free interface index for {live.wire.interfaces[0].name}")

    def _adopt(self, live: LiveWire) -> bool:
        """Adopt the existing wire of this very connection, and change its settings to the wanted ones."""
        there = self._former_links(live)
        if there is None or not live.device.is_as_wanted(live.ends[0].namespace, there):
            return False
        for end, link in zip(live.ends, there, strict=True):
            if link.name != end.place.name and not _rename(end.namespace, link.index, end.place.name):
                return False
            end.index, end.mac = link.index, link.mac
        _refuse_advertisements(live)
        for end, _, settings in live.sides():
            messages, defaults = end_changes.obsolete(end.namespace.socket, end.index, live.wire, settings)
            _apply(live, end, messages)
            default_routes.remove(end.namespace.socket, end.index, defaults)
        _configure(live)
        return True

    def _former_links(self, live: LiveWire) -> list[Link] | None:
        """The links that an earlier process made for the ends, maybe under another name; None if one is not there."""
        found = [end.namespace.socket.link(name=end.place.name) for end in live.ends]
        found = [link if link is not None and link.alias == live.alias else None for link in found]
        named = {link.index for link in found if link is not None}
        left = [each for each in self._ledger.former(live.alias) if each.index not in named]
        if len(left) == 1 and found.count(None) == 1:  # else it is unknown which is which
            place = found.index(None)
            found[place] = _link_at(left[0], live.ends[place].namespace)
        links = [link for link in found if link is not None]
        return links if len(links) == len(found) else None

    # --- obstacles

    def _make_way(self, spaces: Namespaces, live: LiveWire, wire: Wire) -> None:
        """Free the addresses of `wire`. Raises `Conflict` if they are another client's."""
        for alias in self._ledger.in_the_way(spaces, live, wire):
            self._supersede(spaces, live, alias)

    def _remove_leftovers(self, spaces: Namespaces, live: LiveWire) -> bool:
        """Remove links with a name of the wire and no owner, or the same client's; returns whether there was one."""
        found = False
        for end in live.ends:
            taken = end.namespace.socket.link(name=end.place.name)
            if taken is None:
                continue
            if self._ledger.is_former(taken.alias):
                self._supersede(spaces, live, taken.alias)
                end.namespace.socket.apply([delete_link(taken.index)], ignore=GONE)
            elif self._ledger.is_same_client(taken.alias, live):
                self._supersede(spaces, live, taken.alias)
            else:
                continue
            found = True
        return found

    def _supersede(self, spaces: Namespaces, live: LiveWire, alias: str) -> None:
        """Remove another wire for the sake of this one."""
        other = self._ledger.live(alias)
        if other is None:
            self._delete(spaces, self.take_former(spaces, [alias]))
            return
        for end in other.ends:
            _delete_end(spaces.own, end)
        self.forget(spaces, other)
        live.superseded.append(other)

    def _delete(self, spaces: Namespaces, links: Sequence[OwnedLink]) -> None:
        spaces.own.socket.apply([removal_of(link) for link in links], ignore=GONE)

    def _remove_rules(self, spaces: Namespaces, link: OwnedLink) -> None:
        """Those of the policies and the default routes of a link, where its namespace can be opened."""
        with self._opened(spaces, self._ledger.key_of(link)) as namespace:
            if namespace is not None:
                install(namespace, PolicyLink(link.index, link.name, 0), {})
                default_routes.remove(namespace.socket, link.index, _DEFAULTS)

    def _remove_default_routes(self, spaces: Namespaces, end: LiveEnd, routes: Sequence[Route]) -> None:
        with self._opened(spaces, end.key, end.handle) as opened, contextlib.suppress(NetlinkError):
            namespace = opened if end.is_loose else end.namespace
            if namespace is not None:  # else the rules are without their link, and change nothing
                default_routes.remove(namespace.socket, end.index, routes)

    @contextlib.contextmanager
    def _opened(self, spaces: Namespaces, key: FileKey | None, handle: bytes = b"") -> Iterator[Namespace | None]:
        """A namespace that has a handle, or a process in it, or the node's own; None if it is not found."""
        namespace = spaces.own if key == spaces.own.key else spaces.again(handle)
        if namespace is None and key is not None and (path := self._ledger.processes.path(key)) is not None:
            with contextlib.suppress(MeshError):
                namespace = spaces.take(path)
        try:
            yield namespace
        finally:
            if namespace is not None and namespace is not spaces.own:
                spaces.give(namespace)


def _moved(before: Side, after: Side) -> Side:
    """Where a side is now that its namespace was opened by another path."""
    return after if isinstance(before, KernelInterface) and isinstance(after, KernelInterface) else before


def settle(live: LiveWire, timeout: float) -> None:
    """Check whether the first packet would arrive: the kernel sets carrier and addresses when it finds the time.

    The carrier depends on the second end, so this is for both ends when both are set. A wire that takes longer than
    `timeout` is checked again later: the holder of an end can keep it from coming up.
    """
    end_of_wait = time.monotonic() + timeout
    for end, _, settings in live.sides():
        socket, addresses = end.namespace.socket, [address.ip for address in settings.addresses]
        left = max(0.0, end_of_wait - time.monotonic())
        if not socket.settle(end.index, addresses, left, has_carrier=live.device.tells_carrier):
            live.is_settled = False
            return
    live.is_settled = True


def _finish(live: LiveWire) -> None:
    """Configure new links, or remove them."""
    first = live.ends[0]
    try:
        live.device.prepare(first.namespace, live.wire, first.index)
        _refuse_advertisements(live)
        _configure(live)
    except BaseException:
        for end in live.ends:
            end.namespace.socket.apply([delete_link(end.index)], ignore=GONE)
        raise


def _held(end: LiveEnd, namespace: Namespace) -> LiveEnd:
    return replace(end, namespace=namespace, is_loose=False)


def _configure(live: LiveWire) -> None:
    for end, mac, settings in live.sides():
        first = set_up(end.index, live.alias, proxy_arp=settings.proxy_arp or None)
        wanted = end_changes.everything(end.namespace.socket, end.index, live.wire, settings, mac)
        _apply(live, end, [first, *wanted])
    settle(live, _SETTLING_AT_ONCE)


def _apply(live: LiveWire, end: LiveEnd, messages: Sequence[Message]) -> None:
    try:
        end.namespace.socket.apply(messages)
    except NetlinkError as error:
        live.device.explain_down(error)
        if error.errno != errno.EACCES:
            raise
        end.namespace.enable_ipv6(end.name)
        end.namespace.socket.apply(messages)


def _protect_node(own: Namespace, wire: Wire, namespaces: Sequence[Namespace]) -> None:
    """An end in the node's own namespace must not take over the node's networks. Raises `Refused`."""
    for end, namespace in zip(wire.kernel_ends, namespaces, strict=True):
        if os.path.sameopenfile(namespace.descriptor, own.descriptor):
            check_own_namespace(end.settings, Networks(read_underlay()))


def _explain(error: NetlinkError, device: Device, ends: Sequence[LiveEnd]) -> None:
    """Raise the reason of a refused creation; returns if another index may help."""
    for end in ends:
        taken = end.namespace.socket.link(name=end.place.name)
        if taken is not None:
            whose = f", by {taken.alias!r}" if taken.alias else ""
            what = f"interface name {end.place.name!r} is taken in {end.namespace.where}{whose}"
            raise Conflict(what, remedy="rename or delete that interface, or request another name") from error
    device.explain_refusal(error)
    if error.errno not in (errno.EEXIST, errno.EBUSY):
        raise error


def _passed(own: Namespace, end: LiveEnd) -> Traffic | None:
    if end.is_loose:
        return own.socket.traffic(end.index, end.number)
    return end.namespace.socket.traffic(end.index)


def _is_end(namespace: Namespace, end: LiveEnd, alias: str) -> bool:
    link = namespace.socket.link(index=end.index)
    return link is not None and link.alias == alias  # its name may be an administrator's


def _link_at(former: OwnedLink, namespace: Namespace) -> Link | None:
    """The remains of an earlier process, if they are in this namespace."""
    number = OWN if namespace.number is None else namespace.number
    link = namespace.socket.link(index=former.index) if former.number == number else None
    return link if link is not None and link.alias == former.alias else None


def _rename(namespace: Namespace, index: int, name: str) -> bool:
    """Give a link in use another name; kernels before Linux 6.2 refuse that, and the name must be free."""
    try:
        namespace.socket.apply([rename(index, name)])
    except NetlinkError:
        return False
    return True


def _is_there(spaces: Namespaces, link: OwnedLink) -> bool:
    """The number may be another namespace's by now."""
    there = spaces.own.socket.link_there(link.index, link.namespace)
    return there is not None and there.alias == link.alias


def _delete_end(own: Namespace, end: LiveEnd) -> None:
    if not end.is_loose:
        end.namespace.socket.apply([delete_link(end.index)], ignore=GONE)
    elif end.number is not None:
        own.socket.apply([delete_link_there(end.index, end.number)], ignore=GONE)


def _refuse_advertisements(live: LiveWire) -> None:
    """An end has the addresses and routes of its connection, and none from router advertisements."""
    for number, end in enumerate(live.ends):
        if not (live.wire.accept_ra and number == 0):
            end.namespace.refuse_advertisements(end.name)


def _new_ends(namespaces: Sequence[Namespace], wire: Wire, alias: str, device: Device) -> tuple[LiveEnd, ...]:
    """Ends with unused indexes: the kernel counts up from 1, so any high random number is free."""
    ends = tuple(
        LiveEnd(namespace, place, _new_index(), device.mac(alias, side), namespace.key)
        for side, (namespace, place) in enumerate(zip(namespaces, wire.interfaces, strict=True))
    )
    if device.index is not None:
        ends[0].index = device.index
    return ends


def _choose_indexes(live: LiveWire) -> None:
    for end in live.ends if live.device.index is None else ():
        end.index = _new_index()


def _new_index() -> int:
    return _FIRST_INDEX + secrets.randbelow(_INDEXES)
