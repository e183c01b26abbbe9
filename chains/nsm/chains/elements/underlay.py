"""The networks of a process outside the mesh, which no wire may take over.

Read from the kernel (rtnetlink), in the network namespace of this process. An interface is a wire if its alias says
so: forwarders write its owner there (reference 9.2 has upstream's). Not all do: upstream's for OVS writes none. So a
client also knows wires by the names that it requested.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Collection, Iterable, Iterator

from nsm.chains.model.addresses import Address, Network
from nsm.chains.model.networks import Networks

from .rtnetlink import (
    ADDRESS,
    ADDRESSES,
    ALIAS,
    IFNAME,
    LINK,
    LINKS,
    MAIN,
    ROUTE,
    ROUTES,
    RTA_DST,
    UNICAST,
    WIRES,
    attributes_of,
    dump,
    link_of_route,
    local_address,
    netlink_socket,
)

_OURS = 110
_MOST = 10_000
_LIFETIME = 5.0


class Underlay:
    """The result of `read`, for some seconds: interfaces of a workload seldom change except for its wires."""

    def __init__(self, around: Address | None = None, wires: Collection[str] = ()) -> None:
        """With `around`, only networks that contain this address. `wires` may change: see `read`."""
        self._around, self._wires = around, wires
        self._known, self._until, self._but_for = Networks(()), 0.0, frozenset[str]()

    def __call__(self) -> Networks:
        """The networks now, or as they were at most five seconds ago if the wires are the same."""
        now, wires = time.monotonic(), frozenset(self._wires)
        if now >= self._until or wires != self._but_for:
            found = Networks(read(wires))
            self._known = found if self._around is None else found.around(self._around)
            self._until, self._but_for = now + _LIFETIME, wires
        return self._known


def read(wires: Collection[str] = ()) -> list[Network]:
    """The networks of this process's interfaces and the targets of its routes, without wires and default routes.

    Interfaces with the names `wires` are wires whatever their aliases are. Empty if the kernel does not answer.
    """
    found: list[Network] = []
    with contextlib.suppress(OSError), netlink_socket() as sock:
        indices = set(_indices_of(dump(sock, LINKS, _MOST), {each.encode() for each in wires}))
        found += _addresses(dump(sock, ADDRESSES, _MOST), indices)
        found += _routes(dump(sock, ROUTES, _MOST), indices)
    return found


def _indices_of(links: Iterable[bytes], wires: Collection[bytes]) -> Iterator[int]:
    for link in links:
        attributes = attributes_of(link, LINK.size)
        name = attributes.get(IFNAME, b"").rstrip(b"\0")
        if name in wires or attributes.get(ALIAS, b"").startswith(WIRES):
            yield LINK.unpack_from(link)[2]


def _addresses(answers: Iterable[bytes], wires: set[int]) -> Iterator[Network]:
    for answer in answers:
        _, length, _, _, index = ADDRESS.unpack_from(answer)
        packed = local_address(answer)
        if packed and index not in wires:
            yield _network(packed, length)


def _routes(answers: Iterable[bytes], wires: set[int]) -> Iterator[Network]:
    for answer in answers:
        _, length, _, _, table, protocol, _, kind, _ = ROUTE.unpack_from(answer)
        attributes = attributes_of(answer, ROUTE.size)
        is_network = table == MAIN and kind == UNICAST and length and RTA_DST in attributes
        if is_network and protocol != _OURS and link_of_route(attributes) not in wires:
            yield _network(attributes[RTA_DST], length)


def _network(packed: bytes, length: int) -> Network:
    address: Address = ipaddress.ip_address(packed)
    return ipaddress.ip_network((address, length), strict=False)
