"""A netlink socket of one namespace: many changes in one message, every acknowledgement read, errors by name."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsm.chains.core import MeshError
from nsm.chains.model.traffic import Traffic

from .elsewhere import get_link_there, get_links_there, get_number, get_numbers, give_number, number_in
from .encoding import HEADER, Address, Message
from .messages import (
    RouteAnswer,
    alias_of,
    decode_address,
    decode_link,
    decode_route,
    decode_station,
    get_addresses,
    get_link,
    get_route,
    get_stations,
    index_in,
    is_operating,
    statistics_in,
)

_ROUTE = 0
_ERROR, _DONE = 2, 3
_BUFFER = 1 << 20
_AT_ONCE = 256
"""Changes in one write: a socket takes some 200 KB, and the answers have to fit into its receive buffer."""
_NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK = 10, 12
_SOL_NETLINK = 270
_DUMP_INTERRUPTED = 0x10
_FIRST_PORT, _PORTS = 1 << 23, (1 << 30)
"""Above all process ids, which is what the kernel gives, each namespace of processes having its own."""
_TRIES = 8
_numbers = itertools.count(secrets.randbelow(1 << 18) << 12)
"""Those that namespaces get, one after the other; another process begins elsewhere."""
_SOON = 0.0001
"""Seconds between two looks: the kernel takes a tenth of a millisecond to finish."""


class NetlinkError(MeshError):
    """The kernel refused a change; `errno` is its reason."""

    code = 9

    def __init__(self, about: str, where: str, number: int) -> None:
        super().__init__(
            f"the kernel refused to {about} in {where}: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
        )
        self.errno = number


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel has it."""

    index: int
    name: str
    alias: str
    mac: str
    mtu: int
    lower: int
    """The index of the lower link, in its own namespace; 0: none."""
    is_up: bool
    """Whether it was set up and has its carrier."""
    is_set_up: bool
    """Whether it was set up; the carrier depends on the other end."""
    kind: str
    """The kind that it was made as, such as "veth"; empty for a device of the machine."""
    details: Mapping[str, Any]
    """What only its kind has, by the kernel's names."""
    lower_in: int | None = None
    """The number of the namespace which its lower link, its peer or its underlay is in; None: the same."""


class Socket:
    """Made in the namespace of the calling thread. The kernel answers within the call that asks, so nothing waits."""

    def __init__(self, where: str, protocol: int = _ROUTE) -> None:
        self._where = where
        self._sequence = 0
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._port = _bind(self._sock)
        self._sock.settimeout(5.0)

    def close(self) -> None:
        """Close the socket."""
        _own_ports.discard(self._port)
        self._sock.close()

    def apply(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Make all changes, in order. Raises `NetlinkError` for the first refused one; the others are made.

        Refusals whose errno is in `ignore`, or fine with the message itself, count as success.
        """
        fault: NetlinkError | None = None
        for start in range(0, len(messages), _AT_ONCE):
            part = messages[start : start + _AT_ONCE]
            first = self._sequence + 1
            self._sequence += len(part)
            self._send(b"".join(message.numbered(first + i) for i, message in enumerate(part)), part[0].about)
            refused = self._acknowledgements(first, len(part))
            for position, message in enumerate(part):
                number = refused.get(first + position, 0)
                if fault is None and number and number not in ignore | message.fine:
                    fault = NetlinkError(message.about, self._where, number)
        if fault is not None:
            raise fault

    def number_of(self, namespace: int) -> int:
        """The number by which this socket's namespace knows the namespace of an open descriptor.

        Raises `NetlinkError` if the kernel gives none.
        """
        for _ in range(_TRIES):
            wanted = next(_numbers)
            try:
                self.apply([give_number(namespace, wanted)])
                return wanted
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
            answer = self._ask(get_number(namespace))
            if isinstance(answer, bytes) and (number := number_in(answer)) >= 0:
                return number
        raise NetlinkError("number a namespace", self._where, errno.EOPNOTSUPP)

    def link(self, *, name: str = "", index: int = 0) -> Link | None:
        """The link of that name or index, or None."""
        data = self._ask(get_link(name=name, index=index))
        return None if isinstance(data, int) else Link(**decode_link(data))

    def index_named(self, name: str) -> int:
        """The index of the link of that name; 0 if there is none. Much cheaper than all that `link` tells."""
        data = self._ask(get_link(name=name))
        return 0 if isinstance(data, int) else index_in(data)

    def has_link(self, index: int) -> bool:
        """Whether there is a link of that index."""
        return not isinstance(self._ask(get_link(index=index)), int)

    def traffic(self, index: int, namespace: int | None = None) -> Traffic | None:
        """The traffic of the link of that index, or None if there is none; in the namespace of a number, if given."""
        data = self._ask(get_link(index=index) if namespace is None else get_link_there(index, namespace))
        if isinstance(data, int):
            return None
        rx_packets, tx_packets, rx_bytes, tx_bytes, _, _, rx_drops, tx_drops = statistics_in(data)
        return Traffic(rx_packets, tx_packets, rx_bytes, tx_bytes, rx_drops + tx_drops)

    def is_there(self, index: int, namespace: int) -> bool | None:
        """Whether there is a link of that index in the namespace of a number; None if that namespace is gone."""
        answer = self._ask(get_link_there(index, namespace))
        return None if answer == errno.EINVAL else not isinstance(answer, int)

    def known_number(self, namespace: int) -> int | None:
        """The number that the namespace of an open descriptor has already; None if it has none."""
        answer = self._ask(get_number(namespace))
        number = number_in(answer) if isinstance(answer, bytes) else -1
        return number if number >= 0 else None

    def numbers(self) -> list[int]:
        """The numbers of all namespaces that have one here."""
        return [number for answer in self.dump(get_numbers()) if (number := number_in(answer)) >= 0]

    def links(self, mark: str, namespace: int | None = None) -> list[Link]:
        """The links whose alias begins with `mark`; in the namespace of a number, if given."""
        marked = [data for data in self.dump(get_links_there(namespace)) if mark.encode() in data]
        return [Link(**decode_link(data)) for data in marked if alias_of(data).startswith(mark)]

    def link_there(self, index: int, namespace: int | None) -> Link | None:
        """The link of that index in the namespace of a number, or in this one."""
        data = self._ask(get_link(index=index) if namespace is None else get_link_there(index, namespace))
        return None if isinstance(data, int) else Link(**decode_link(data))

    def stations(self, index: int) -> list[str]:
        """The hardware addresses of the interfaces that are on a link and up, in whichever namespace (macvlan)."""
        return list(filter(None, map(decode_station, self.dump(get_stations(index)))))

    def route(self, address: Address) -> RouteAnswer:
        """The way to `address`. Raises `NetlinkError` if there is none."""
        question = get_route(address)
        data = self._ask(question)
        if isinstance(data, int):
            raise NetlinkError(question.about, self._where, data)
        return decode_route(data)

    def index_of(self, address: Address) -> int | None:
        """The index of the link that has `address`, or None."""
        found = map(decode_address, self.dump(get_addresses(address.version)))
        return next((index for index, there in found if there == address), None)

    def settle(self, index: int, addresses: Sequence[Address], timeout: float, *, has_carrier: bool = True) -> bool:
        """Wait until a link passes packets and those to its `addresses` are taken; whether they are after `timeout`.

        A link that got its carrier after it was set up (not all kinds report it: `has_carrier`) drops packets until the
        kernel's link watch has run, which is later; since Linux 6.8 the query itself makes it run. An
        IPv6 address is not local at once either.
        """
        end = time.monotonic() + timeout
        while not self._is_settled(index if has_carrier else 0, addresses):
            if time.monotonic() >= end:
                return False
            time.sleep(_SOON)
        return True

    def dump(self, question: Message) -> list[bytes]:
        """All messages that answer `question`, from one moment."""
        while True:
            answers, is_of_one_moment = self._answers(question)
            if is_of_one_moment:
                return answers

    def _answers(self, question: Message) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        try:
            self._send(question.numbered(self._sequence), question.about)
        finally:
            self._sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 0)
        answers: list[bytes] = []
        interrupted = 0
        while True:
            data, position = self._receive(), 0
            while position < len(data):
                size, kind, flags, sequence, _ = HEADER.unpack_from(data, position)
                if sequence == self._sequence:
                    interrupted |= flags & _DUMP_INTERRUPTED
                    if kind in (_DONE, _ERROR):
                        self._raise_if_refused(question, data, position)
                        return answers, not interrupted
                    answers.append(data[position : position + size])
                position += (size + 3) & ~3

    def _raise_if_refused(self, question: Message, data: bytes, position: int) -> None:
        (number,) = struct.unpack_from("=i", data, position + HEADER.size)
        if number:
            raise NetlinkError(question.about, self._where, -number)

    def _send(self, data: bytes, about: str) -> None:
        try:
            self._sock.send(data)
        except OSError as error:
            raise NetlinkError(about, self._where, error.errno or errno.EIO) from error

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(_BUFFER)
        except OSError as error:
            raise NetlinkError("answer", self._where, error.errno or errno.ETIMEDOUT) from error

    def _is_settled(self, index: int, addresses: Sequence[Address]) -> bool:
        if index:
            data = self._ask(get_link(index=index))
            if isinstance(data, int) or not is_operating(data):
                return False
        return all(self._is_local(address) for address in addresses if address.version == 6)

    def _is_local(self, address: Address) -> bool:
        data = self._ask(get_route(address))
        return not isinstance(data, int) and decode_route(data).is_local

    def _ask(self, question: Message) -> bytes | int:
        """The answer, or why there is none: an errno."""
        self._sequence += 1
        self._send(question.numbered(self._sequence), question.about)
        while True:
            data = self._receive()
            _, kind, _, sequence, _ = HEADER.unpack_from(data)
            if sequence == self._sequence:
                return _errno(data, 0) if kind == _ERROR else data

    def _acknowledgements(self, first: int, count: int) -> dict[int, int]:
        """The errno of each change, by sequence number."""
        answers: dict[int, int] = {}
        while len(answers) < count:
            data, position = self._receive(), 0
            while position < len(data):
                size, kind, _, sequence, _ = HEADER.unpack_from(data, position)
                if kind == _ERROR and sequence >= first:
                    answers[sequence] = _errno(data, position)
                position += (size + 3) & ~3
        return answers


_own_ports: set[int] = set()


def is_own(port: int) -> bool:
    """Whether the number belongs to a socket of this process: its news are of our own changes."""
    return port in _own_ports


def _bind(sock: socket.socket) -> int:
    """Bind to a number that is unused in all namespaces."""
    for _ in range(_TRIES):
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        if port not in _own_ports:
            with contextlib.suppress(OSError):
                sock.bind((port, 0))
                _own_ports.add(port)
                return port
    raise NetlinkError("number a socket", "our own namespace", errno.EADDRINUSE)


def _errno(data: bytes, position: int) -> int:
    return int(-struct.unpack_from("=i", data, position + HEADER.size)[0])
