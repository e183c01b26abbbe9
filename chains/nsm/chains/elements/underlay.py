"""The networks that a process is on without the mesh: what no wire may take over.

Read from the kernel (rtnetlink), in the network namespace of this process. An interface is a wire if its alias says so:
forwarders write there whose it is (reference 9.2 has upstream's). Not all do: upstream's for OVS writes none. So a
client also knows wires by the names that it asked for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Collection, Iterable, Iterator

from nsm.chains.model.addresses import Address, Network
from nsm.chains.model.networks import Networks

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_REQUEST_DUMP, _ERROR, _DONE = 0x301, 2, 3
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_IFNAME, _ALIAS, _IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_OIF = 3, 20, 1, 2, 1, 4
_MAIN, _UNICAST, _OURS = 254, 1, 110
_WIRES = (b"nsm ", b"server-", b"client-")
_BUFFER, _MOST = 1 << 17, 10_000
_LIFETIME = 5.0


class Underlay:
    """What `read` found, for some seconds: interfaces of a workload seldom change but for its wires."""

    def __init__(self, around: Address | None = None, wires: Collection[str] = ()) -> None:
        """With `around`, only networks that this address is of. `wires` may change: see `read`."""
        self._around, self._wires = around, wires
        self._known, self._until, self._but_for = Networks(()), 0.0, frozenset[str]()

    def __call__(self) -> Networks:
        """The networks as they are, or were five seconds ago if there were the same wires."""
        now, wires = time.monotonic(), frozenset(self._wires)
        if now >= self._until or wires != self._but_for:
            found = Networks(read(wires))
            self._known = found if self._around is None else found.around(self._around)
            self._until, self._but_for = now + _LIFETIME, wires
        return self._known


def read(wires: Collection[str] = ()) -> list[Network]:
    """The networks of this process's interfaces, and those that its routes lead to, but for wires and the default.

    Interfaces with the names `wires` are some whatever their aliases say. Empty where the kernel does not say.
    """
    found: list[Network] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        indices = set(_indices_of(_dump(sock, _GETLINK, _LINK.pack(0, 0, 0, 0, 0)), {each.encode() for each in wires}))
        found += _addresses(_dump(sock, _GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)), indices)
        found += _routes(_dump(sock, _GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)), indices)
    return found


def _dump(sock: socket.socket, command: int, body: bytes) -> list[bytes]:
    sock.send(_HEADER.pack(_HEADER.size + len(body), command, _REQUEST_DUMP, command, 0) + body)
    answers: list[bytes] = []
    while True:
        data, position = sock.recv(_BUFFER), 0
        while position < len(data):
            size, kind, _, _, _ = _HEADER.unpack_from(data, position)
            if kind in (_DONE, _ERROR):
                return answers
            if len(answers) < _MOST:
                answers.append(data[position + _HEADER.size : position + size])
            position += max(_HEADER.size, (size + 3) & ~3)


def _indices_of(links: Iterable[bytes], wires: Collection[bytes]) -> Iterator[int]:
    for link in links:
        attributes = _attributes(link, _LINK.size)
        name = attributes.get(_IFNAME, b"").rstrip(b"\0")
        if name in wires or attributes.get(_ALIAS, b"").startswith(_WIRES):
            yield _LINK.unpack_from(link)[2]


def _addresses(answers: Iterable[bytes], wires: set[int]) -> Iterator[Network]:
    for answer in answers:
        _, length, _, _, index = _ADDRESS.unpack_from(answer)
        attributes = _attributes(answer, _ADDRESS.size)
        packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if packed and index not in wires:
            yield _network(packed, length)


def _routes(answers: Iterable[bytes], wires: set[int]) -> Iterator[Network]:
    for answer in answers:
        _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(answer)
        attributes = _attributes(answer, _ROUTE.size)
        if table == _MAIN and kind == _UNICAST and length and protocol != _OURS and _RTA_DST in attributes:
            index = attributes.get(_RTA_OIF, bytes(4))
            if int.from_bytes(index, sys.byteorder) not in wires:
                yield _network(attributes[_RTA_DST], length)


def _network(packed: bytes, length: int) -> Network:
    address: Address = ipaddress.ip_address(packed)
    return ipaddress.ip_network((address, length), strict=False)


def _attributes(data: bytes, position: int) -> dict[int, bytes]:
    found = {}
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        found[kind] = data[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found
