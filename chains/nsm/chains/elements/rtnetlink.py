"""Reads the links, addresses and routes of this process's network namespace from the kernel (rtnetlink)."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping
from typing import NamedTuple

LINKS, ADDRESSES, ROUTES = 18, 22, 26
"""What can be dumped: RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE."""
LINK, ADDRESS, ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
"""The format of an answer's beginning; attributes follow."""
IFNAME, ALIAS, RTA_DST = 3, 20, 1
MAIN, UNICAST = 254, 1
LINK_GROUP = 1
NEWLINK, DELLINK, ERROR = 16, 17, 2
"""Kinds of messages: RTM_NEWLINK, RTM_DELLINK, NLMSG_ERROR."""
WIRES = (b"nsm ", b"server-", b"client-")
"""How the alias of a wire's interface begins: this project's forwarders, and upstream's at either end."""
BUFFER = 1 << 17
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL, _RTA_OIF = 1, 2, 4
_REQUEST, _DUMP, _DONE, _INTERRUPTED = 0x1, 0x300, 3, 0x10
_TIMEOUT, _TRIES = 1.0, 5


def netlink_socket(groups: int = 0) -> socket.socket:
    """A socket that times out after a second; it receives the events of `groups`. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        sock.settimeout(_TIMEOUT)
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def dump(sock: socket.socket, what: int, most: int) -> list[bytes]:
    """The first `most` answers, without their headers; read again if they changed meanwhile.

    Raises OSError. `sock` must not receive anything else.
    """
    for _ in range(_TRIES):
        answers, is_whole = _dump(sock, what, most)
        if is_whole:
            break
    return answers


class Message(NamedTuple):
    """One message; `sequence` is that of the request that it answers."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def request(kind: int, body: bytes, *, sequence: int = 0, flags: int = 0) -> bytes:
    """A request of `kind` with a body that attributes may follow."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, sequence, 0) + body


def messages_of(data: bytes) -> list[Message]:
    """All messages that were received together."""
    found, position = [], 0
    while position + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
        found.append(Message(kind, flags, sequence, data[position + _HEADER.size : position + size]))
        position += max(_HEADER.size, (size + 3) & ~3)
    return found


def attributes_of(body: bytes, position: int) -> dict[int, bytes]:
    """The attributes of a message's body from `position` on, by type."""
    found = {}
    while position + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, position)
        found[kind] = body[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return found


def attribute_of(body: bytes, position: int, wanted: int) -> bytes:
    """The first attribute of the type `wanted`, or nothing; the others are not read."""
    while position + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, position)
        if kind == wanted:
            return body[position + _ATTRIBUTE.size : position + size]
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return b""


def local_address(answer: bytes) -> bytes:
    """The address that an interface has, packed; empty if there is none."""
    attributes = attributes_of(answer, ADDRESS.size)
    return attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b""


def link_of_route(attributes: Mapping[int, bytes]) -> int:
    """The index of the interface of a route; 0 if it has none, or several."""
    return int.from_bytes(attributes.get(_RTA_OIF, bytes(4)), sys.byteorder)


def _dump(sock: socket.socket, what: int, most: int) -> tuple[list[bytes], bool]:
    body = bytes({LINKS: LINK, ADDRESSES: ADDRESS, ROUTES: ROUTE}[what].size)
    sock.send(request(what, body, sequence=what, flags=_DUMP))
    answers: list[bytes] = []
    is_whole = True
    while True:
        for message in messages_of(sock.recv(BUFFER)):
            is_whole = is_whole and not message.flags & _INTERRUPTED
            if message.kind in (_DONE, ERROR):
                return answers, is_whole
            if len(answers) < most:
                answers.append(message.body)
