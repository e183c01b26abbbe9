"""The networks that a process is on without the mesh: what no wire may take over.

Read from the kernel (rtnetlink), in the network namespace of this process. An interface is a wire if its alias says so:
forwarders write there whose it is (reference 9.2 has upstream's).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator

from nsm.chains.model.addresses import Address, Network
from nsm.chains.model.networks import Networks

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_REQUEST_DUMP, _ERROR, _DONE = 0x301, 2, 3
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_ALIAS, _IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_OIF = 20, 1, 2, 1, 4
_MAIN, _UNICAST, _OURS = 254, 1, 110
_WIRES = (b"nsm ", b"server-", b"client-")
_BUFFER, _MOST = 1 << 17, 10_000
_LIFETIME = 5.0


class Underlay:
    """What `read` found, for some seconds: interfaces of a workload seldom change but for its wires."""

    def __init__(self, around: Address | None = None) -> None:
        """With `around`, only networks that this address is of."""
        self._around = around
        self._known, self._until = Networks(()), 0.0

    def __call__(self) -> Networks:
        """The networks as they are, or were five seconds ago."""
        now = time.monotonic()
        if now >= self._until:
            found = Networks(read())
            self._known = found if self._around is None else found.around(self._around)
            self._until = now + _LIFETIME
        return self._known


def read() -> list[Network]:
    """The networks of this process's interfaces, and those that its routes lead to, but for wires and the default.

    Empty where the kernel does not say.
    """
    found: list[Network] = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        wires = set(_wires(_dump(sock, _GETLINK, _LINK.pack(0, 0, 0, 0, 0))))
        found += _addresses(_dump(sock, _GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)), wires)
        found += _routes(_dump(sock, _GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)), wires)
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


def _wires(links: Iterable[bytes]) -> Iterator[int]:
    for link in links:
        if _attributes(link, _LINK.size).get(_ALIAS, b"").startswith(_WIRES):
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
