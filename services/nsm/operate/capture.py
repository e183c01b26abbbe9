"""`nsm capture`: the packets at the ends of a wire, a line each, or for Wireshark."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from nsm.chains.tools.arguments import seconds

from .command import OK, Command, OperatorError, UsageError, parser_of, run
from .naming import name_of
from .output import DIM, Cell

if TYPE_CHECKING:
    from nsm.view.model import Wire

    from .probes.pcapng import Writer
    from .probes.ring import Packet, Ring

_SIDES = {"client": ["client"], "endpoint": ["endpoint"], "both": ["client", "endpoint"]}
_LOOK, _LATE_NS = 0.2, 150_000_000
"""Seconds between two looks, and how much later than another ring one may hand out a packet, in nanoseconds."""
_BYTES = 1 << 18


def main(arguments: list[str]) -> int:
    """The packets at either end of a wire: a line each, or a file for Wireshark."""
    parser = parser_of("capture", main.__doc__)
    parser.add_argument("wire", metavar="WIRE", help="CLIENT/INTERFACE, a connection id or a unique beginning of it")
    parser.add_argument(
        "filter",
        nargs="*",
        metavar="FILTER",
        help="only such packets: icmp, tcp port 80, host 10.0.0.1 and not arp, ..",
    )
    parser.add_argument("-w", dest="file", metavar="FILE", help="write them to FILE (pcapng); -: to standard output")
    parser.add_argument("--at", choices=[*_SIDES], default="client", help="at which end to capture [client]")
    parser.add_argument("-c", dest="count", type=_count, metavar="COUNT", help="end after that many packets")
    parser.add_argument("--seconds", type=seconds, metavar="N", help="end after that long")
    parser.add_argument(
        "--snap", type=_count, default=_BYTES, metavar="BYTES", help="how many bytes of a packet to keep [all]"
    )
    return run(parser, arguments, _capture)


def _capture(command: Command) -> int:
    from .probes.echo import reason  # noqa: PLC0415 - the parser's faults need none of it
    from .probes.filters import compiled  # noqa: PLC0415
    from .probes.ring import Ring  # noqa: PLC0415
    from .probes.sought import both_ends, need  # noqa: PLC0415

    chosen = command.arguments
    words = " ".join(chosen.filter)
    try:
        program = compiled(words, chosen.snap)
    except ValueError as error:
        raise UsageError(f"filter {words!r}: {error}") from None
    with ExitStack() as stack:
        wire, ends = stack.enter_context(both_ends(command.target, chosen.wire))
        sides = _SIDES[chosen.at]
        need(wire, ends, sides, command.target)
        try:
            rings = [stack.enter_context(closing(Ring(ends[side], program))) for side in sides]
        except OSError as error:
            raise OperatorError(f"cannot capture at {name_of(wire)}: {reason(error)}") from None
        session = _Session(rings, chosen.count, chosen.seconds)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, session.stop)
        if chosen.file is None:
            _show(command, session)
        else:
            _write(stack.enter_context(_opened(chosen.file)), wire, words, session)
        session.report()
    return OK


class _Session:
    """Packets of several rings, until enough have arrived, the time is over, or the user interrupts."""

    def __init__(self, rings: list[Ring], count: int | None, limit: float | None) -> None:
        self.rings, self._left, self.taken = rings, count, 0
        self._end = time.monotonic() + limit if limit else None
        self._held: list[tuple[int, Packet]] = []
        self._stopped = False

    def batches(self) -> Iterator[list[tuple[int, Packet]]]:
        """Packets with the number of their ring, in the order of time."""
        from nsm.services.agent.waiting import readable  # noqa: PLC0415

        while not self._stopped and self._left != 0 and (self._end is None or time.monotonic() < self._end):
            readable(self.rings, _LOOK)
            yield self._taken(time.time_ns() - (_LATE_NS if len(self.rings) > 1 else 0))
        yield self._taken(time.time_ns())

    def stop(self, *_: object) -> None:
        """End soon, with all that has arrived: a signal's handler."""
        self._stopped = True

    def _taken(self, until_ns: int) -> list[tuple[int, Packet]]:
        """Packets up to a time: those of one ring may come out before earlier ones of the other."""
        self._held += [(number, packet) for number, ring in enumerate(self.rings) for packet in ring.packets()]
        self._held.sort(key=lambda each: each[1].time_ns)
        ready = bisect_right(self._held, until_ns, key=lambda each: each[1].time_ns)
        found, self._held = self._held[:ready][: self._left], self._held[ready:]
        self._left = None if self._left is None else self._left - len(found)
        self.taken += len(found)
        return found

    def report(self) -> None:
        """Tell how many packets there were, and how many were lost on the way to this process."""
        drops = sum(ring.dropped() for ring in self.rings)
        lost = f"; {drops} more did not fit into memory" if drops else ""
        print(f"{self.taken} packet{'' if self.taken == 1 else 's'}{lost}", file=sys.stderr)


def _show(command: Command, session: _Session) -> None:
    from .probes.decode import summary  # noqa: PLC0415

    types = [ring.link_type for ring in session.rings]
    names = [ring.end.name for ring in session.rings]
    width = max(map(len, names))
    for batch in session.batches():
        for number, packet in batch:
            text, at = summary(packet.data, types[number], packet.length), names[number]
            when = datetime.fromtimestamp(packet.time_ns / 1e9).astimezone()
            if command.output.is_json:
                head = {"time": when.isoformat(), "at": at, "direction": "out" if packet.is_outgoing else "in"}
                command.output.json({**head, "bytes": packet.length, "summary": text})
            else:
                arrow = "→" if packet.is_outgoing else "←"
                command.output.parts([Cell(f"{when:%H:%M:%S.%f} {at:<{width}} {arrow} ", DIM), text])


def _write(file: BinaryIO, wire: Wire, words: str, session: _Session) -> None:
    try:
        writer = _begun(file, wire, words, session)
        for batch in session.batches():
            for number, packet in batch:
                writer.packet(number, packet)
            writer.flush()
        for number, ring in enumerate(session.rings):
            writer.statistics(number, time.time_ns(), ring.dropped())
        writer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OperatorError(f"the capture cannot be written: {error.strerror}") from None


def _begun(file: BinaryIO, wire: Wire, words: str, session: _Session) -> Writer:
    from .probes.pcapng import Writer  # noqa: PLC0415

    path = " → ".join(hop.name for hop in wire.path)
    comment = f"{name_of(wire)} to {wire.endpoint} of {wire.service} over {', '.join(wire.way)}; connection {wire.id}"
    writer = Writer(file, f"{comment}; path {path}" if path else comment)
    for ring in session.rings:
        about = f"the {ring.end.side}'s end, {ring.end.link.name} with MTU {ring.end.link.mtu}"
        writer.add(ring.end.name, about, ring.link_type, words)
    writer.flush()
    return writer


def _opened(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdout.buffer
    try:
        return open(path, "wb")
    except OSError as error:
        raise OperatorError(f"{path!r} cannot be written: {error.strerror}") from None


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:9]) < 10**9:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 on")
