"""Echoes (ICMP and ICMPv6) from one end of a wire to the other, of any size, with the kernel's times of arrival."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from nsm.services.agent.waiting import readable
from nsm.view.model import Wire

from .ends import CLIENT, ENDPOINT, End

IP_HEADER = {4: 20, 6: 40}
_ECHO_HEADER = 8
SMALLEST = {4: 68, 6: 1280}
"""The MTU that every link has (RFC 791, RFC 8200)."""
_HEADER, _TOKEN = struct.Struct("!BBHHH"), struct.Struct("!8sQ")
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3
"""Options of ip(7) and ipv6(7): never fragment, and do not believe an earlier path MTU."""
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER, _SO_TIMESTAMPNS = 255, 1, 1, 35
_TIME = struct.Struct("@qq")
_DEFAULT_BYTES = 56
_LAST, _SOONEST = 1.0, 0.05
"""Seconds to wait for the answers to the last echoes while none was answered, and at least; see `_patience`."""
_TIMES, _TRIES, _FIRST = 10, 3, 0.25
"""How many times the longest time so far an answer may take; how often an echo of a size is sent, and how many seconds
at most its answer may take."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Way:
    """One direction of a wire: from an end with an address to an address of the other end."""

    end: End
    to: str
    """The name of the other end."""
    source: Address
    target: Address


def ways_of(wire: Wire, ends: dict[str, End]) -> list[Way]:
    """Both directions, by the first pair of addresses of each family; of the ends that are on this machine."""
    names = {CLIENT: f"{wire.client}/{wire.interface}", ENDPOINT: wire.endpoint}
    found = []
    for here, there in _pairs(_addresses(wire.client_addresses), _addresses(wire.endpoint_addresses)):
        for side, source, target in ((CLIENT, here, there), (ENDPOINT, there, here)):
            if side in ends:
                other = ENDPOINT if side == CLIENT else CLIENT
                found.append(Way(ends[side], ends[other].name if other in ends else names[other], source, target))
    return found


def _addresses(texts: Iterable[str]) -> list[Address]:
    return [ipaddress.ip_interface(each).ip for each in texts]


def _pairs(these: Sequence[Address], those: Sequence[Address]) -> Iterator[tuple[Address, Address]]:
    for version in (4, 6):
        one = next((each for each in these if each.version == version), None)
        other = next((each for each in those if each.version == version), None)
        if one is not None and other is not None:
            yield one, other


@dataclass
class Echoes:
    """What became of the echoes of one direction. Times are in milliseconds."""

    way: Way
    sent: int = 0
    times: dict[int, float] = field(default_factory=dict)
    """By the number of the echo."""
    fault: str = ""
    """The kernel's reason why an echo could not be sent or was not delivered."""

    @property
    def received(self) -> int:
        """How many were answered."""
        return len(self.times)

    @property
    def loss(self) -> float:
        """The part that was not answered, from 0 to 1."""
        return 1 - self.received / self.sent if self.sent else 1.0

    def percentile(self, percent: float) -> float | None:
        """The time within which that many of the answers came; None if there was none."""
        return percentile([*self.times.values()], percent)


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The smallest of `values` that `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)] if ordered else None


class Echo:
    """A socket that sends echoes in one direction, only over its wire; `close` it. Raises OSError."""

    def __init__(self, way: Way) -> None:
        self.way, self._version = way, way.source.version
        self._token = os.urandom(8)
        self.socket = way.end.inside(self._opened)

    def fileno(self) -> int:
        """The descriptor, for `poll`."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def send(self, number: int, size: int = 0) -> None:
        """Send echo `number`; the IP packet has `size` bytes, or some 84. Raises OSError."""
        header = IP_HEADER[self._version] + _ECHO_HEADER
        body = _TOKEN.pack(self._token, time.time_ns())
        body += bytes((size - header if size else _DEFAULT_BYTES) - len(body))
        packet = _HEADER.pack(_REQUEST[self._version], 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF) + body
        if self._version == 4:  # of ICMPv6, the kernel computes it
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        self.socket.send(packet)

    def answers(self) -> Iterator[tuple[int, float]]:
        """The answers that have arrived: the number of the echo, and how many milliseconds it took. Raises OSError."""
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return
            data = data[(data[0] & 0xF) * 4 :] if self._version == 4 else data
            if len(data) < _HEADER.size + _TOKEN.size or data[0] != _REPLY[self._version]:
                continue
            token, sent = _TOKEN.unpack_from(data, _HEADER.size)
            if token == self._token:
                yield _HEADER.unpack_from(data)[4], (_arrival(ancillary) - sent) / 1e6

    def _opened(self) -> socket.socket:
        way, is_v4 = self.way, self._version == 4
        family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if is_v4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.end.link.name.encode())
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if is_v4:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
                sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY[4]) & 0xFFFFFFFF))
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
                sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _only_icmp6(_REPLY[6]))
            sock.bind(_place(way.source, way.end.link.index))
            sock.connect(_place(way.target, way.end.link.index))
        except OSError:
            sock.close()
            raise
        return sock


def _place(address: Address, index: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if address.version == 4:
        return str(address), 0
    return str(address), 0, 0, index if address.is_link_local else 0


def _only_icmp6(kind: int) -> bytes:
    blocked = [0xFFFFFFFF] * 8
    blocked[kind >> 5] &= ~(1 << (kind & 31))
    return struct.pack("=8I", *blocked)


def _arrival(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIME.unpack(data[: _TIME.size])
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(ways: Iterable[Way], *, count: int, interval: float, size: int = 0) -> list[Echoes]:
    """Send `count` echoes in each direction, every `interval` seconds, and wait for the answers.

    Raises OSError if an end cannot be entered, or may not send echoes.
    """
    found = [Echoes(way) for way in ways]
    with ExitStack() as stack:
        echoes = [(each, echo) for each in found if (echo := _opened(each, stack)) is not None]
        if echoes:
            _exchange(echoes, count, interval, size)
    for each in found:
        each.sent = count
    return found


def _opened(echoes: Echoes, stack: ExitStack) -> Echo | None:
    try:
        echo = Echo(echoes.way)
    except OSError as error:
        if error.errno not in _ABOUT_WIRE:
            raise
        echoes.fault = reason(error)
        return None
    stack.callback(echo.close)
    return echo


def _exchange(echoes: Sequence[tuple[Echoes, Echo]], count: int, interval: float, size: int) -> None:
    begin, number = time.monotonic(), 0
    while True:
        now = time.monotonic()
        end = begin + (count - 1) * interval + max(_patience(found.times.values()) for found, _ in echoes)
        if number < count and now >= begin + number * interval:
            for found, echo in echoes:
                _send(found, echo, number, size)
            number += 1
            continue
        if now >= end or (number == count and all(found.received == count for found, _ in echoes)):
            return
        until = begin + number * interval if number < count else end
        ready = readable([echo for _, echo in echoes], until - now)
        for found, echo in echoes:
            if echo in ready:
                _take(found, echo)


def _send(found: Echoes, echo: Echo, number: int, size: int) -> None:
    try:
        echo.send(number, size)
    except OSError as error:
        found.fault = reason(error)


def _take(found: Echoes, echo: Echo) -> None:
    try:
        for number, took in echo.answers():
            found.times.setdefault(number, took)
    except OSError as error:  # a router on the way, or the kernel, answers that it cannot be delivered
        found.fault = reason(error)


def _patience(times: Iterable[float]) -> float:
    """How many seconds an answer may take, if earlier ones took `times`, in milliseconds."""
    longest = max(times, default=None)
    return _LAST if longest is None else min(_LAST, max(_SOONEST, longest / 1000 * _TIMES))


def reason(error: OSError) -> str:
    """The kernel's reason, for people."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


_ABOUT_WIRE = {
    errno.EADDRNOTAVAIL,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENXIO,
    errno.EINVAL,
}
_REASONS = {
    errno.EADDRNOTAVAIL: "the interface has lost its address",
    errno.EHOSTUNREACH: "the other end does not answer to its neighbour's question for its address",
    errno.ENETDOWN: "the interface is down",
    errno.ENETUNREACH: "there is no route to the other end over the interface",
    errno.ENODEV: "the interface is gone",
    errno.ENXIO: "the interface is gone",
    errno.EMSGSIZE: "the packet is larger than the MTU of the interface",
    errno.EPERM: "a packet filter in the network namespace does not let it out",
}


def mtu(way: Way, most: int) -> int | None:
    """The size of the largest IP packet, up to `most`, that passes in both directions whole; None: none does.

    Found by echoes that must not be fragmented. Raises OSError as `ping` does.
    """
    with ExitStack() as stack:
        found = Echoes(way)
        echo = _opened(found, stack)
        if echo is None:
            return None
        probes = _Sizes(echo)
        least = SMALLEST[way.source.version]
        if not probes.passes(least):
            return None
        if probes.passes(most):
            return most
        good, bad = least, most
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if probes.passes(middle) else (good, middle)
        return good


class _Sizes:
    """Tries packets of sizes; waits for answers several times as long as the slowest took."""

    def __init__(self, echo: Echo) -> None:
        self._echo, self._number = echo, 0
        self._times: list[float] = []

    def passes(self, size: int) -> bool:
        """Whether an echo of `size` bytes is answered."""
        for _ in range(_TRIES):
            self._number += 1
            try:
                self._echo.send(self._number, size)
                if self._answer(self._number):
                    return True
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False
        return False

    def _answer(self, number: int) -> bool:
        end = time.monotonic() + min(_FIRST, _patience(self._times))
        while (left := end - time.monotonic()) > 0 and readable([self._echo], left):
            for answered, took in self._echo.answers():
                self._times.append(took)
                if answered == number:
                    return True
        return False
