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

from .messages import Address, Message, decode_link, get_link, get_route, is_local, is_operating

_ROUTE = 0
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 20
_NETLINK_CAP_ACK = 10
_SOL_NETLINK = 270
_SOON = 0.0001
"""Seconds between two looks: the kernel takes a tenth of a millisecond to finish."""


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

    def has_link(self, index: int) -> bool:
        """Whether there is a link of that index."""
        return self._ask(get_link(index=index))[0] != _ERROR

    def settle(self, index: int, addresses: Sequence[Address], timeout: float) -> bool:
        """Wait until a link passes packets and those to its `addresses` are taken; whether they are after `timeout`.

        A link that got its carrier after it was set up drops what is sent until the kernel's link watch has run, and
        that is later; since Linux 6.8 the question itself makes it run. An IPv6 address is not local at once either.
        """
        end = time.monotonic() + timeout
        while not self._is_settled(index, addresses):
            if time.monotonic() >= end:
                return False
            time.sleep(_SOON)
        return True

    def _is_settled(self, index: int, addresses: Sequence[Address]) -> bool:
        kind, data = self._ask(get_link(index=index))
        if kind == _ERROR or not is_operating(data):
            return False
        return all(is_local(self._ask(get_route(address))[1]) for address in addresses if address.version == 6)

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
