"""Measures a wire: the largest packet that passes, the delay of paced datagrams, and the throughput, each way."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nsm.services.agent.waiting import readable

from . import stream
from .echo import IP_HEADER, Echoes, Way, mtu, percentile, ping, reason
from .ends import End

_UDP_HEADER = 8
_PACED, _PACE, _SETTLE = 300, 0.001, 0.2
"""How many datagrams are sent to measure delay and jitter, how many seconds apart; how long the last may take."""
_PROGRAM_SLACK = 10.0
_SO_TIMESTAMPNS, _TIME, _NUMBERED = 35, struct.Struct("@qq"), struct.Struct("!QQ")
_ECHOES, _ECHO_INTERVAL = 20, 0.01


@dataclass
class Passed:
    """What passed in one direction. `bits_per_s` counts what applications receive, without headers."""

    way: Way
    protocol: str
    bits_per_s: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    loss: float | None = None
    """Of datagrams as fast as they can be sent, from 0 to 1."""
    retransmissions: int | None = None
    paced_loss: float = 1.0
    """Of datagrams, one each millisecond."""
    delay_ms: float | None = None
    """One way, of half of those datagrams; both ends have the clock of this machine."""
    jitter_ms: float | None = None
    """Of those, as RFC 3550 defines it."""
    fault: str = ""


@dataclass
class Measured:
    """All that was measured. `mtu` is found by packets, None if none passed; `promised_mtu` is that of the ends."""

    promised_mtu: int
    mtu: int | None = None
    echoes: list[Echoes] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)


def measure(ways: Sequence[Way], ends: Sequence[End], seconds: float, *, udp: bool = False) -> Measured:
    """Measure the `ways` of a wire, one after the other; throughput for `seconds` each. Raises OSError.

    `ways` are the two directions between a pair of addresses, and `ends` both ends.
    """
    found = Measured(min(end.link.mtu for end in ends))
    found.echoes = ping(ways, count=_ECHOES, interval=_ECHO_INTERVAL)
    if any(each.received for each in found.echoes):
        found.mtu = mtu(ways[0], found.promised_mtu)
    for way, back in ((ways[0], ways[1]), (ways[1], ways[0])):
        passed = Passed(way, "UDP" if udp else "TCP")
        try:
            _pace(passed, back.end)
            if udp:
                _datagrams(passed, back.end, seconds, found.mtu or found.promised_mtu)
            else:
                _stream(passed, back.end, seconds)
        except OSError as error:
            passed.fault = passed.fault or reason(error)
        found.passed.append(passed)
    return found


def _pace(passed: Passed, receiver: End) -> None:
    """Send numbered datagrams at a pace that every wire can carry, and compare the times of sending and arrival."""
    with ExitStack() as stack:
        sender, sink = _datagram_sockets(passed.way, receiver, stack)
        sink.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sink.setblocking(False)
        delays: dict[int, float] = {}
        begin = time.monotonic()
        for number in range(_PACED):
            _arrived(sink, delays)
            while (left := begin + number * _PACE - time.monotonic()) > 0:
                if readable([sink], left):
                    _arrived(sink, delays)
            sender.send(_NUMBERED.pack(number, time.time_ns()))
        end = time.monotonic() + _SETTLE
        while len(delays) < _PACED and (left := end - time.monotonic()) > 0:
            if readable([sink], left):
                _arrived(sink, delays)
    passed.paced_loss = 1 - len(delays) / _PACED
    passed.delay_ms = percentile(delays.values(), 50)
    passed.jitter_ms = jitter([delays[number] for number in sorted(delays)])


def _arrived(sink: socket.socket, delays: dict[int, float]) -> None:
    while True:
        try:
            data, ancillary, _, _ = sink.recvmsg(64, 64)
        except BlockingIOError:
            return
        number, sent = _NUMBERED.unpack(data)
        times = [_TIME.unpack(each[: _TIME.size]) for level, kind, each in ancillary if kind == _SO_TIMESTAMPNS]
        arrived = times[0][0] * 1_000_000_000 + times[0][1] if times else time.time_ns()
        delays.setdefault(number, (arrived - sent) / 1e6)


def jitter(delays: Sequence[float]) -> float | None:
    """The interarrival jitter (RFC 3550, 6.4.1) of datagrams with these delays; None of fewer than two."""
    if len(delays) < 2:
        return None
    value = 0.0
    for before, after in itertools.pairwise(delays):
        value += (abs(after - before) - value) / 16
    return value


def _stream(passed: Passed, receiver: End, seconds: float) -> None:
    with ExitStack() as stack:
        way = passed.way
        listener = stack.enter_context(receiver.inside(lambda: _bound(receiver, str(way.target), socket.SOCK_STREAM)))
        listener.listen(1)
        listener.settimeout(stream.PATIENCE)
        sender = stack.enter_context(
            way.end.inside(lambda: _connected(way, socket.SOCK_STREAM, listener.getsockname()[1]))
        )
        sink = stack.enter_context(listener.accept()[0])
        sink.settimeout(None)
        sent, received = _programs(("send-stream", sender), ("receive-stream", sink), seconds, 0)
    _note(passed, sent, received)
    passed.retransmissions = sent.get("retransmissions")


def _datagrams(passed: Passed, receiver: End, seconds: float, largest: int) -> None:
    size = largest - IP_HEADER[passed.way.source.version] - _UDP_HEADER
    with ExitStack() as stack:
        sender, sink = _datagram_sockets(passed.way, receiver, stack)
        sent, received = _programs(("send-datagrams", sender), ("receive-datagrams", sink), seconds, size)
    _note(passed, sent, received)
    if sent.get("datagrams"):
        passed.loss = max(0.0, 1 - received.get("datagrams", 0) / sent["datagrams"])


def _note(passed: Passed, sent: dict[str, int], received: dict[str, int]) -> None:
    passed.fault = str(sent.get("fault") or received.get("fault") or "")
    passed.bytes, passed.seconds = received.get("bytes", 0), received.get("seconds", 0.0)
    passed.bits_per_s = passed.bytes * 8 / passed.seconds if passed.seconds else 0.0


def _datagram_sockets(way: Way, receiver: End, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    sink = stack.enter_context(receiver.inside(lambda: _bound(receiver, str(way.target), socket.SOCK_DGRAM)))
    port = sink.getsockname()[1]
    sender = stack.enter_context(way.end.inside(lambda: _connected(way, socket.SOCK_DGRAM, port)))
    return sender, sink


def _bound(end: End, address: str, kind: socket.SocketKind) -> socket.socket:
    """A socket at an end, which takes only what arrives over the wire."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, end.link.name.encode())
        sock.bind(_place(address, 0, end))
    except OSError:
        sock.close()
        raise
    return sock


def _connected(way: Way, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = _bound(way.end, str(way.source), kind)
    try:
        sock.settimeout(stream.PATIENCE)
        sock.connect(_place(str(way.target), port, way.end))
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    return sock


def _place(address: str, port: int, end: End) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in address:
        return address, port
    return address, port, 0, end.link.index if address.lower().startswith("fe8") else 0


def _programs(
    sends: tuple[str, socket.socket], receives: tuple[str, socket.socket], seconds: float, size: int
) -> list[dict[str, int]]:
    """What the sending and the receiving program report."""
    running = []
    for what, sock in (receives, sends):
        words = [sys.executable, "-I", "-S", str(Path(stream.__file__)), what, str(sock.fileno()), f"{seconds:g}"]
        program = subprocess.Popen([*words, str(size)], stdout=subprocess.PIPE, pass_fds=[sock.fileno()])
        running.append(program)
        sock.close()  # the program has it: the end of a stream is seen when that one closes it
    found = []
    for program in reversed(running):
        try:
            output, _ = program.communicate(timeout=seconds + stream.PATIENCE + _PROGRAM_SLACK)
            found.append(json.loads(output))
        except (subprocess.TimeoutExpired, ValueError):
            program.kill()
            program.communicate()
            found.append({"fault": "the measuring process ended without a result"})
    return found
