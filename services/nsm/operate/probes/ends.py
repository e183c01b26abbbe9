"""Finds the ends of a wire on this machine: their network namespaces, and the interfaces there."""

from __future__ import annotations

import glob
import hashlib
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from nsm.chains.elements.rtnetlink import (
    ADDRESS,
    ADDRESSES,
    ALIAS,
    IFNAME,
    LINK,
    LINKS,
    WIRES,
    attributes_of,
    dump,
    local_address,
    netlink_socket,
)
from nsm.mesh import namespaces
from nsm.view.model import Wire

T = TypeVar("T")

CLIENT, ENDPOINT = "client", "endpoint"
_MTU, _UP = 4, 1
_MOST = 10_000
_ADDRESS_FITS, _IS_OURS, _NAME_FITS = 4, 2, 1


@dataclass(frozen=True)
class Link:
    """An interface. `addresses` are packed."""

    index: int
    name: str
    alias: bytes
    mtu: int
    is_up: bool
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class End:
    """One end of a wire: its namespace as a descriptor, which is open while `Spaces` is, and its interface."""

    side: str
    """`CLIENT` or `ENDPOINT`."""
    name: str
    """For people: the workload and the interface."""
    network: int
    link: Link

    def inside(self, work: Callable[[], T]) -> T:
        """The result of `work` in the namespace of this end: the sockets that it opens stay there. Raises OSError."""

        def enter() -> T:
            namespaces.enter(self.network, namespaces.NEW_NET)
            return work()

        return namespaces.in_thread(enter)


class Spaces(AbstractContextManager["Spaces"]):
    """The network namespaces in which the ends of a wire may be; they are open while the context is.

    `add` those that are known to belong to a workload first. Then `enter_user` once, and `find`.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._known: dict[str, list[int]] = {CLIENT: [], ENDPOINT: []}
        self._seen: dict[tuple[int, int], int] = {}
        self._user: int | None = None

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, side: str, path: str) -> None:
        """The namespace at `path` is that of the workload on `side`. Raises OSError."""
        self._known[side].append(self._open(path))

    def of_user(self, path: str) -> None:
        """The namespaces belong to the user namespace at `path`, which `enter_user` has to enter. Raises OSError."""
        if self._user is None:
            self._user = self._descriptor(path)

    def add_all(self) -> None:
        """All namespaces of this machine that have a process or a name, as far as this user may look."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each namespace is a descriptor
        paths = glob.glob("/proc/[0-9]*/ns/net") + glob.glob("/run/netns/*") + glob.glob("/run/docker/netns/*")
        for path in paths:
            with suppress(OSError):
                self._open(path)

    def enter_user(self) -> None:
        """Enter the user namespace that was named, if it is another one: for meshes of ordinary users.

        Only a process with one thread can do so. Raises OSError.
        """
        if self._user is not None and not namespaces.is_own_user(self._user):
            namespaces.enter(self._user, namespaces.NEW_USER)

    def find(self, wire: Wire) -> dict[str, End]:
        """The ends of `wire` that are on this machine, by side."""
        client = self._best(CLIENT, wire, None)
        endpoint = self._best(ENDPOINT, wire, client)
        return {end.side: end for end in (client, endpoint) if end is not None}

    def _best(self, side: str, wire: Wire, other: End | None) -> End | None:
        known, mark = self._known[side], Mark.of(wire, side)
        found: list[tuple[int, int, Link]] = []
        for network in known or self._seen.values():
            for link in links_in(network):
                if other is None or (network, link.index) != (other.network, other.link.index):
                    found.append((mark.score(link), network, link))
        least = _NAME_FITS if known else _IS_OURS
        best = max(found, key=lambda each: each[0], default=None)
        if best is None or best[0] < least:
            return None
        workload = wire.client if side == CLIENT else wire.endpoint
        return End(side, f"{workload}/{best[2].name}", best[1], best[2])

    def _open(self, path: str) -> int:
        found = os.stat(path)
        key = found.st_dev, found.st_ino
        if key not in self._seen:
            self._seen[key] = self._descriptor(path)
        return self._seen[key]

    def _descriptor(self, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, descriptor)
        return descriptor


@dataclass(frozen=True)
class Mark:
    """How the interface of one end is recognized: by the alias that its forwarder gave it, by address, by name."""

    ids: tuple[bytes, ...]
    addresses: tuple[bytes, ...]
    name: str

    @classmethod
    def of(cls, wire: Wire, side: str) -> Mark:
        """That of one end of `wire`."""
        ids = dict.fromkeys([wire.id, *(hop.id for hop in wire.path)])
        addresses = wire.client_addresses if side == CLIENT else wire.endpoint_addresses
        return cls(
            tuple(form for each in ids if each for form in _forms(each)),
            tuple(packed(each) for each in addresses),
            wire.interface if side == CLIENT else "",
        )

    def score(self, link: Link) -> int:
        """How well `link` fits: an address is better than the alias, which both ends have, and that than a name."""
        has_address = not set(self.addresses).isdisjoint(link.addresses)
        is_ours = link.alias.startswith(WIRES) and link.alias.endswith(self.ids)
        is_of_another = bool(self.ids) and link.alias.startswith(WIRES) and not is_ours
        fits = is_ours or (has_address and (not self.name or link.name == self.name))
        if not fits or is_of_another:  # in a workload of this wire it may be it: a forwarder may have its own ids
            return _NAME_FITS if fits or self.name == link.name != "" else 0
        return has_address * _ADDRESS_FITS + is_ours * _IS_OURS + (link.name == self.name)


def packed(address: str) -> bytes:
    """An address, with or without a prefix length, as bytes."""
    import ipaddress  # noqa: PLC0415 - slow to import, and not needed by commands that fail before

    return ipaddress.ip_interface(address).ip.packed


def links_in(network: int) -> list[Link]:
    """The interfaces of a network namespace; none if it cannot be entered."""

    def read() -> list[Link]:
        namespaces.enter(network, namespaces.NEW_NET)
        with netlink_socket() as sock:
            return [*_links(dump(sock, LINKS, _MOST), dump(sock, ADDRESSES, _MOST))]

    try:
        return namespaces.in_thread(read)
    except OSError:
        return []


def _links(links: Iterable[bytes], addresses: Iterable[bytes]) -> Iterator[Link]:
    by_index: dict[int, list[bytes]] = {}
    for answer in addresses:
        by_index.setdefault(ADDRESS.unpack_from(answer)[4], []).append(local_address(answer))
    for answer in links:
        _, _, index, flags, _ = LINK.unpack_from(answer)
        attributes = attributes_of(answer, LINK.size)
        name = attributes.get(IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        mtu = int.from_bytes(attributes.get(_MTU, b""), sys.byteorder)
        alias = attributes.get(ALIAS, b"").rstrip(b"\0")
        yield Link(index, name, alias, mtu, bool(flags & _UP), tuple(by_index.get(index, ())))


def _forms(connection_id: str) -> Sequence[bytes]:
    """How an alias ends for a connection: with its id, or with the digest of one that is too long."""
    return connection_id.encode(), hashlib.sha256(connection_id.encode()).hexdigest().encode()
