"""Changes by others in all namespaces that have a number, as the kernel reports them: one socket, nothing held open.

A socket inside a namespace would keep that alive after its last process. One socket of the node's own namespace
receives the news of all namespaces to which it gave numbers (NETLINK_LISTEN_ALL_NSID, Linux 4.2), and that a number,
and so its namespace, is gone (RTM_DELNSID). News are hints to look at a link: its state is read afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nsm.chains.core import Refused

from .elsewhere import number_in
from .encoding import (
    DELLINK,
    DELROUTE,
    HEADER,
    IFF_UP,
    IFLA_IFNAME,
    IFLA_MTU,
    LINK,
    NEWLINK,
    NEWROUTE,
    REPLACE,
    ROUTE,
    ROUTE_PROTOCOL,
    RTA_OIF,
    SCOPE_LINK,
    TABLE_LOCAL,
    Network,
    attributes_in,
)
from .encoding import number_in as number_among
from .rules import read_any_route

_ROUTE = 0
_NEWADDR, _DELADDR, _NEWNEIGH, _DELNEIGH, _DELRULE, _DELNSID = 20, 21, 28, 29, 33, 89
_LINKS, _NEIGHBORS, _IPV4_ADDRESSES, _IPV4_ROUTES, _IPV4_RULES = 1, 3, 5, 7, 8
_IPV6_ADDRESSES, _IPV6_ROUTES, _IPV6_RULES, _NUMBERS = 9, 11, 19, 28
_GROUPS = (
    _LINKS,
    _NEIGHBORS,
    _IPV4_ADDRESSES,
    _IPV4_ROUTES,
    _IPV4_RULES,
    _IPV6_ADDRESSES,
    _IPV6_ROUTES,
    _IPV6_RULES,
    _NUMBERS,
)
_SOL_NETLINK, _ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 270, 1, 8
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_BUFFER, _MESSAGE, _ANCILLARY = 1 << 22, 1 << 14, 64
_INDEX = struct.Struct("=4xi")
"""Where the index of the link is in messages about addresses and neighbors."""
_SIGNED = struct.Struct("=i")

_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)
_TYPE, _REPLACED = 4 + _LOW, 6 + _HIGH
"""Bytes of the header: the type, and the half of the flags with NLM_F_REPLACE."""
_SCOPE_OF_ADDRESS, _TYPE_OF_NEIGHBOR, _MULTICAST = 16 + 3, 16 + 11, 5
_FLAGS_OF_ADDRESS, _STATE_OF_NEIGHBOR, _TABLE_OF_ROUTE, _PROTOCOL_OF_ROUTE = 16 + 2, 16 + 8 + _LOW, 16 + 4, 16 + 5
_PERMANENT, _REPLACE_HIGH = 0x80, REPLACE >> 8
BY_ADVERTISEMENT = 9
"""RTPROT_RA: the kernel made it out of a router advertisement."""
_LOAD_BYTE, _IF_EQUAL, _IF_BITS, _RETURN = 0x30, 0x15, 0x45, 0x06
_INSTRUCTION = struct.Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The state of a link in a message."""

    name: str
    mtu: int
    is_up: bool
    """Whether it is set up; its carrier may be missing."""


class News(NamedTuple):
    """Something that changed on a link, or in a namespace as a whole (`link_index` 0)."""

    number: int | None
    """Of the namespace; None: the node's own."""
    link_index: int
    port: int
    """The port of the socket that made the change; 0 if the kernel does not report it."""
    kind: int
    flags: int
    data: bytes

    @property
    def is_end_of_namespace(self) -> bool:
        """Whether the namespace of that number is gone."""
        return self.kind == _DELNSID

    @property
    def is_end_of_link(self) -> bool:
        """Whether the link was deleted, or moved to another namespace."""
        return self.kind == DELLINK

    @property
    def is_rule(self) -> bool:
        """Whether a rule was removed, which is of no link."""
        return self.kind == _DELRULE

    @property
    def is_neighbor(self) -> bool:
        """Whether it is about a neighbor."""
        return self.kind in (_NEWNEIGH, _DELNEIGH)

    def replaced(self) -> Network | None:
        """The prefix of a route that another's route has replaced; that one may be of any link, or none."""
        if self.kind != NEWROUTE or self.flags & REPLACE == 0:
            return None
        return read_any_route(self.data).prefix

    def link(self) -> LinkFacts | None:
        """The link's current state; None if the message is about something else."""
        return _link_facts(self.data) if self.kind == NEWLINK else None


class Listener:
    """Made in the node's namespace, by the calling thread. Raises `Refused` without CAP_NET_BROADCAST."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE)
        try:
            self._sock.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        except OSError as error:
            self._sock.close()
            raise Refused(
                f"the kernel does not report changes of wires by others ({error.strerror}); "
                "this forwarder does not have CAP_NET_BROADCAST"
            ) from None
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except OSError:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        _attach(self._sock)
        self._sock.bind((0, 0))
        for group in _GROUPS:
            self._sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._sock.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, to wait for news."""
        return self._sock.fileno()

    def read(self, most: int) -> list[News] | None:
        """Up to `most` news, empty if there are none; None: more arrived than there is room for, and some are lost."""
        news: list[News] = []
        while len(news) < most:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(_MESSAGE, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return None
                raise
            if (each := _read(data, ancillary)) is not None:
                news.append(each)
        return news

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _read(data: bytes, ancillary: Sequence[tuple[int, int, bytes]]) -> News | None:
    _, kind, flags, _, port = HEADER.unpack_from(data)
    number = next((_SIGNED.unpack(value)[0] for _, which, value in ancillary if which == _LISTEN_ALL_NSID), None)
    if kind == _DELNSID:
        # of the numbers that other namespaces gave nothing is known here
        return News(number_in(data), 0, port, kind, flags, data) if number is None else None
    if kind in (NEWLINK, DELLINK):
        index = LINK.unpack_from(data, HEADER.size)[2]
    elif kind in (NEWROUTE, DELROUTE):
        index = number_among(attributes_in(data, HEADER.size + ROUTE.size), RTA_OIF)
    elif kind == _DELRULE:
        index = 0
    else:
        (index,) = _INDEX.unpack_from(data, HEADER.size)
    return News(number, index, port, kind, flags, data)


def _link_facts(data: bytes) -> LinkFacts:
    found = attributes_in(data, HEADER.size + LINK.size)
    name, flags = found.get(IFLA_IFNAME, b""), LINK.unpack_from(data, HEADER.size)[3]
    return LinkFacts(name.rstrip(b"\0").decode(), number_among(found, IFLA_MTU), bool(flags & IFF_UP))


def _attach(sock: socket.socket) -> None:
    """Let the kernel pass on only news that may concern a loss on a wire: most news are about additions."""
    program = _assembled(_PROGRAM)
    held = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(held)))


_Line = str | tuple[int, int] | tuple[int, int, str, str]
"""A label, or an instruction and its value; a comparison says where to go if it holds and if not ("": to the next)."""
_PROGRAM: Sequence[_Line] = (
    (_LOAD_BYTE, _TYPE),
    (_IF_EQUAL, NEWLINK, "take", ""),
    (_IF_EQUAL, DELLINK, "take", ""),
    (_IF_EQUAL, _DELADDR, "lost address", ""),
    (_IF_EQUAL, DELROUTE, "lost route", ""),
    (_IF_EQUAL, _DELNEIGH, "lost neighbor", ""),
    (_IF_EQUAL, _DELRULE, "take", ""),
    (_IF_EQUAL, _DELNSID, "take", ""),
    (_IF_EQUAL, _NEWADDR, "address", ""),
    (_IF_EQUAL, NEWROUTE, "route", ""),
    (_IF_EQUAL, _NEWNEIGH, "neighbor", "leave"),
    "address",  # one with a lifetime, such as by a router advertisement
    (_LOAD_BYTE, _FLAGS_OF_ADDRESS),
    (_IF_BITS, _PERMANENT, "leave", "take"),
    "neighbor",  # one that was set, not found
    (_LOAD_BYTE, _STATE_OF_NEIGHBOR),
    (_IF_BITS, _PERMANENT, "take", "leave"),
    "route",  # one by a router advertisement, or that took the place of another one
    (_LOAD_BYTE, _PROTOCOL_OF_ROUTE),
    (_IF_EQUAL, BY_ADVERTISEMENT, "take", ""),
    (_IF_EQUAL, ROUTE_PROTOCOL, "leave", ""),
    (_LOAD_BYTE, _REPLACED),
    (_IF_BITS, _REPLACE_HIGH, "take", "leave"),
    "lost address",  # but for those that the kernel gives and takes
    (_LOAD_BYTE, _SCOPE_OF_ADDRESS),
    (_IF_EQUAL, SCOPE_LINK, "leave", "take"),
    "lost neighbor",  # likewise, which are groups
    (_LOAD_BYTE, _TYPE_OF_NEIGHBOR),
    (_IF_EQUAL, _MULTICAST, "leave", "take"),
    "lost route",  # likewise
    (_LOAD_BYTE, _TABLE_OF_ROUTE),
    (_IF_EQUAL, TABLE_LOCAL, "leave", "take"),
    "take",
    (_RETURN, _MESSAGE),
    "leave",
    (_RETURN, 0),
)
"""Classic BPF, by which the kernel chooses."""


def _assembled(lines: Sequence[_Line]) -> bytes:
    labels: dict[str, int] = {}
    instructions: list[tuple[int, int] | tuple[int, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            labels[line] = len(instructions)
        else:
            instructions.append(line)
    packed = []
    for place, (code, value, *where) in enumerate(instructions):
        jumps = [labels[str(label)] - place - 1 if label else 0 for label in where] or [0, 0]
        packed.append(_INSTRUCTION.pack(code, *jumps, value))
    return b"".join(packed)
