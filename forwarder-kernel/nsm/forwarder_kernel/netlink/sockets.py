"""A netlink socket of one namespace: many changes in one message, every acknowledgement read, errors by name."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nsm.chains.core import MeshError

from .messages import Address, Message, decode_link, get_link, get_route, is_local, look_at_link

_ROUTE = 0
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 20
_NETLINK_CAP_ACK = 10
_SOL_NETLINK = 270
_SETTLING, _PAUSE = 0.05, 0.0001
"""Seconds that the kernel gets to finish an address, and between two looks: it takes a tenth of a millisecond."""


class NetlinkError(MeshError):
    """The kernel refused a change; `errno` is its reason."""

    code = 9

    def __init__(self, about: str, where: str, number: int) -> None:
        super().__init__(f"the kernel refused to {about} in {where}: {os.strerror(number)} ({errno.errorcode[number]})")
        self.errno = number


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel has it."""

    index: int
    name: str
    alias: str
    mac: str
    mtu: int


class Socket:
    """Made in the namespace of the calling thread. The kernel answers within the call that asks, so nothing waits."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sequence = 0
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sock.bind((0, 0))
        self._sock.settimeout(5.0)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def apply(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Make all changes, in order. Raises `NetlinkError` for the first that was refused; the others are made.

        Refusals whose errno is in `ignore` count as success.
        """
        if not messages:
            return
        first = self._sequence + 1
        self._sequence += len(messages)
        self._sock.send(b"".join(message.numbered(first + i) for i, message in enumerate(messages)))
        refused = self._acknowledgements(first, len(messages))
        for position, message in enumerate(messages):
            number = refused.get(first + position, 0)
            if number and number not in ignore:
                raise NetlinkError(message.about, self._where, number)

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        """The link of that name or index, or None."""
        kind, data = self._ask(get_link(name=name, index=index))
        return None if kind == _ERROR else Link(**decode_link(data))

    def settle(self, index: int, addresses: Sequence[Address]) -> None:
        """Have the kernel take note of a link's carrier; wait until packets to its IPv6 `addresses` are taken."""
        self._ask(look_at_link(index))
        end = time.monotonic() + _SETTLING
        for address in addresses:
            while address.version == 6 and not is_local(self._ask(get_route(address))[1]):
                if time.monotonic() > end:
                    return
                time.sleep(_PAUSE)

    def _ask(self, question: Message) -> tuple[int, bytes]:
        """Kind and bytes of the answer to one question."""
        self._sequence += 1
        self._sock.send(question.numbered(self._sequence))
        while True:
            data = self._sock.recv(_BUFFER)
            _, kind, _, sequence, _ = _HEADER.unpack_from(data)
            if sequence == self._sequence:
                return kind, data

    def _acknowledgements(self, first: int, count: int) -> dict[int, int]:
        """The errno of each change, by sequence number."""
        answers: dict[int, int] = {}
        while len(answers) < count:
            data, position = self._sock.recv(_BUFFER), 0
            while position < len(data):
                size, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
                if kind == _ERROR and sequence >= first:
                    answers[sequence] = -struct.unpack_from("=i", data, position + _HEADER.size)[0]
                position += (size + 3) & ~3
        return answers
