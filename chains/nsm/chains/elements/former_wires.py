"""The wires that an earlier process of an endpoint served, as the kernel has them, and their addresses.

A restarted endpoint knows nothing of the addresses that it gave out. Its clients' wires still exist in its network
namespace, and their interfaces show it: the addresses of either end, in addresses and host routes, and in the alias
whose wire it is. These addresses stay reserved until their client has requested again, or its wire is gone.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import socket
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nsm.chains.core import Call
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address

from .rtnetlink import (
    ADDRESS,
    ADDRESSES,
    ALIAS,
    BUFFER,
    DELLINK,
    IFNAME,
    LINK,
    LINK_GROUP,
    LINKS,
    ROUTE,
    ROUTES,
    RTA_DST,
    UNICAST,
    WIRES,
    attributes_of,
    dump,
    link_of_route,
    local_address,
    messages_of,
    netlink_socket,
)

_MOST = 500_000
_LATE = 20.0
"""Seconds between the first look and the second: the earlier process's last wires may be made only then."""
LIFETIME = 600.0
"""The longest time in seconds that addresses are reserved if no connection is kept for longer than its tokens."""


@dataclass(frozen=True, slots=True)
class FormerWire:
    """One interface: its index, whose wire it is (see `names_of`), the addresses of either end, and its own name."""

    index: int
    name: str
    addresses: frozenset[Address]
    interface: str = ""


class Wires(Protocol):
    """Looks up the wires."""

    def look(self) -> list[FormerWire]:
        """All existing wires. Later changes of them are reported from now on. Raises OSError."""
        ...

    def gone(self) -> Collection[int] | None:
        """The indexes of links that were removed since; None: unknown, look again. Raises OSError."""
        ...

    def close(self) -> None:
        """Stop reporting, until `look`."""
        ...


@runtime_checkable
class Holds(Protocol):
    """An element that can reserve addresses of its own networks for the connection that has them."""

    def hold(self, name: str, addresses: Collection[Address]) -> None:
        """Give the free ones among them only to the connection called `name` (see `names_of`)."""
        ...

    def release(self, name: str) -> None:
        """End its reservations; the addresses that it was given are its own."""
        ...


@runtime_checkable
class Requests(Protocol):
    """An element of an endpoint that is a client, too."""

    requested: Container[str]
    """The names of its own client's interfaces, which are no wires of the endpoint's clients."""


class FormerWires:
    """Has `elements` reserve the addresses of existing wires, for at most `lifetime` seconds.

    Looks when the first connection is requested, and once more a little later. It costs nothing if there are no such
    wires.
    """

    def __init__(self, elements: Sequence[object] = (), lifetime: float = LIFETIME, wires: Wires | None = None) -> None:
        self._holders = [each for each in elements if isinstance(each, Holds)]
        self._requesting = [each for each in elements if isinstance(each, Requests)]
        self._lifetime, self._wires = lifetime, KernelWires() if wires is None else wires
        self._links: dict[int, str] = {}
        self._indexes: dict[str, set[int]] = {}
        self._addresses: dict[str, set[Address]] = {}
        self._used: dict[Address, set[str]] = {}
        self._looks, self._next_look, self._until = 0, 0.0, 0.0
        self._is_told = False

    def __len__(self) -> int:
        """The number of interfaces whose clients have not requested again."""
        return len(self._links)

    def look(self, in_use: Container[Address] = frozenset()) -> None:
        """Reserve the addresses of existing wires that are not in use yet, and release those of removed wires."""
        if self._looks < 2 and (now := _now()) >= self._next_look:
            self._looks += 1
            self._next_look = now + _LATE
            self._until = self._until or now + self._lifetime
            self._read(in_use)
        if self._links:
            self._forget_what_is_gone(in_use)

    def is_anothers(self, address: Address, call: Call) -> bool:
        """Whether a wire of another connection than the call's has this address."""
        names = self._used.get(address)
        return names is not None and names.isdisjoint(names_of(call))

    def claimed(self, call: Call) -> None:
        """The connection of `call` is established again: its addresses are known, and others of its wire are free."""
        if self._links:
            for name in names_of(call):
                self._forget(list(self._indexes.get(name, ())))

    def close(self) -> None:
        """Stop watching the kernel."""
        self._wires.close()

    def _read(self, in_use: Container[Address]) -> None:
        try:
            there = [wire for wire in self._wires.look() if not self._is_own(wire)]
        except OSError as error:
            self._wires.close()
            log.warning("cannot see which wires an earlier process of this endpoint has", error=str(error))
            return
        gone = self._links.keys() - {wire.index for wire in there}
        for wire in there:
            if wire.index not in self._links and not any(each in in_use for each in wire.addresses):
                self._add(wire)
        self._forget(gone)
        if not self._links:
            self._wires.close()
        elif not self._is_told:
            self._is_told = True
            log.info("wires of an earlier process: their addresses are reserved", interfaces=len(self._links))

    def _is_own(self, wire: FormerWire) -> bool:
        return any(wire.interface in each.requested for each in self._requesting)

    def _add(self, wire: FormerWire) -> None:
        self._links[wire.index] = wire.name
        self._indexes.setdefault(wire.name, set()).add(wire.index)
        self._addresses.setdefault(wire.name, set()).update(wire.addresses)
        for address in wire.addresses:
            self._used.setdefault(address, set()).add(wire.name)
        for holder in self._holders:
            holder.hold(wire.name, wire.addresses)

    def _forget_what_is_gone(self, in_use: Container[Address]) -> None:
        if _now() >= self._until:
            self._forget(list(self._links))
            return
        try:
            gone = self._wires.gone()
        except OSError as error:
            log.warning("cannot see which wires are still there", error=str(error))
            return
        if gone is None:
            self._read(in_use)
        else:
            self._forget([index for index in gone if index in self._links])

    def _forget(self, indexes: Collection[int]) -> None:
        for index in indexes:
            name = self._links.pop(index)
            self._indexes[name].discard(index)
            if not self._indexes[name]:
                self._free(name)
        if indexes and not self._links:
            self._wires.close()

    def _free(self, name: str) -> None:
        del self._indexes[name]
        for address in self._addresses.pop(name):
            self._used[address].discard(name)
            if not self._used[address]:
                del self._used[address]
        for holder in self._holders:
            holder.release(name)


def names_of(call: Call) -> frozenset[str]:
    """The names of a connection's wire at its endpoint, by this project's forwarders and by upstream's."""
    path = call.connection.path
    if path is None or not 0 < path.index < len(path.path_segments):
        return frozenset()
    made_by, client = path.path_segments[path.index - 1].id, path.path_segments[0].id
    digest = hashlib.sha256(made_by.encode()).hexdigest()  # instead of one that is too long for an alias
    return frozenset((f"nsm {made_by}", f"nsm {digest}", f"client {client}"))


class KernelWires:
    """The wires in this process's network namespace."""

    def __init__(self) -> None:
        self._news: socket.socket | None = None

    def look(self) -> list[FormerWire]:
        """See `Wires`."""
        self.close()
        self._news = netlink_socket(LINK_GROUP)
        self._news.setblocking(False)
        with netlink_socket() as sock:
            links = list(_named(dump(sock, LINKS, _MOST)))
            if not links:
                return []
            addresses: dict[int, set[Address]] = {index: set() for index, _, _ in links}
            for index, address in _ends(dump(sock, ADDRESSES, _MOST), dump(sock, ROUTES, _MOST)):
                if index in addresses:
                    addresses[index].add(address)
        return [FormerWire(index, name, frozenset(addresses[index]), interface) for index, name, interface in links]

    def gone(self) -> Collection[int] | None:
        """See `Wires`."""
        if self._news is None:
            return None
        gone: set[int] = set()
        while True:
            try:
                data = self._news.recv(BUFFER)
            except BlockingIOError:
                return gone
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return None
            gone.update(LINK.unpack_from(each.body)[2] for each in messages_of(data) if each.kind == DELLINK)

    def close(self) -> None:
        """See `Wires`."""
        if self._news is not None:
            self._news.close()
            self._news = None


def _named(links: Sequence[bytes]) -> Iterator[tuple[int, str, str]]:
    """The index of each interface that is a wire, whose it is, and the interface's name."""
    for link in links:
        attributes = attributes_of(link, LINK.size)
        if attributes.get(ALIAS, b"").startswith(WIRES):
            alias, interface = _text(attributes[ALIAS]), _text(attributes.get(IFNAME, b""))
            yield LINK.unpack_from(link)[2], _name_in(alias), interface


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _name_in(alias: str) -> str:
    """See `names_of`."""
    if alias.startswith("nsm "):
        return f"nsm {alias.rpartition(' ')[2]}"
    return f"client {alias.partition('-')[2]}"


def _ends(addresses: Sequence[bytes], routes: Sequence[bytes]) -> Iterator[tuple[int, Address]]:
    """The address that each interface has, and the one that each route to a single host leads to."""
    for answer in addresses:
        if packed := local_address(answer):
            yield ADDRESS.unpack_from(answer)[4], ipaddress.ip_address(packed)
    for answer in routes:
        _, length, _, _, _, _, _, kind, _ = ROUTE.unpack_from(answer)
        attributes = attributes_of(answer, ROUTE.size)
        packed = attributes.get(RTA_DST, b"")
        if kind == UNICAST and packed and length == 8 * len(packed):
            yield link_of_route(attributes), ipaddress.ip_address(packed)


def _now() -> float:
    return asyncio.get_running_loop().time()
