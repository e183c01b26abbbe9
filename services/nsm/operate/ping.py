"""`nsm ping`: echoes over a wire in both directions."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nsm.chains.terminal import escaped
from nsm.chains.tools.arguments import seconds

from .command import OK, Command, OperatorError, parser_of, run
from .errors import DOWN
from .naming import name_of
from .output import RED, YELLOW, Cell

if TYPE_CHECKING:
    from nsm.view.model import Wire

    from .probes.echo import Echoes

_MOST, _LARGEST, _SHORTEST = 10_000, 65_000, 0.001


def main(arguments: list[str]) -> int:
    """Echoes over a wire in both directions: loss and round-trip times."""
    parser = parser_of("ping", main.__doc__)
    parser.add_argument("wire", metavar="WIRE", help="CLIENT/INTERFACE, a connection id or a unique beginning of it")
    parser.add_argument("-c", dest="count", type=_count, default=10, metavar="COUNT", help="echoes each way [10]")
    parser.add_argument(
        "-i", dest="interval", type=_interval, default=0.1, metavar="SECONDS", help="time between two echoes [0.1]"
    )
    parser.add_argument(
        "-s", dest="size", type=_size, default=0, metavar="BYTES", help="size of an IP packet, which is not fragmented"
    )
    return run(parser, arguments, _ping)


def _ping(command: Command) -> int:
    from .probes.echo import ping, reason, ways_of  # noqa: PLC0415 - the parser's faults need none of it
    from .probes.ends import CLIENT, ENDPOINT  # noqa: PLC0415
    from .probes.sought import both_ends, elsewhere  # noqa: PLC0415

    chosen = command.arguments
    with both_ends(command.target, chosen.wire) as (wire, ends):
        ways = ways_of(wire, ends)
        if not ways:
            raise OperatorError(f"{name_of(wire)} has no IP addresses at both ends; there is nothing to ping")
        try:
            found = ping(ways, count=chosen.count, interval=chosen.interval, size=chosen.size)
        except OSError as error:
            raise OperatorError(f"cannot send echoes over {name_of(wire)}: {reason(error)}") from None
        missing = [elsewhere(wire, side) for side in (CLIENT, ENDPOINT) if side not in ends]
    if command.output.is_json:
        command.output.json({**about(wire), "missing": missing, "directions": [as_json(each) for each in found]})
    else:
        _print(command, wire, found)
        for name in missing:
            print(escaped(f"{name} is not on this machine: nothing was sent from there"), file=sys.stderr)
    return OK if all(each.received for each in found) else DOWN


def about(wire: Wire) -> dict[str, Any]:
    """What names a wire, as JSON."""
    return {
        "wire": name_of(wire),
        "id": wire.id,
        "service": wire.service,
        "endpoint": wire.endpoint,
        "way": [*wire.way],
        "state": str(wire.state),
    }


def as_json(echoes: Echoes) -> dict[str, Any]:
    """The result of one direction; times are in milliseconds."""
    way, times = echoes.way, {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    return {
        "from": way.end.name,
        "to": way.to,
        "source": str(way.source),
        "target": str(way.target),
        "sent": echoes.sent,
        "received": echoes.received,
        "loss": round(echoes.loss, 4),
        "ms": {name: _rounded(echoes.percentile(percent)) for name, percent in times.items()},
        "fault": echoes.fault,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _print(command: Command, wire: Wire, found: list[Echoes]) -> None:
    command.output.line(
        f"{name_of(wire)} to {wire.endpoint or wire.service} over {', '.join(wire.way) or 'an unknown way'}"
    )
    heads = ["FROM", "TO", "ADDRESS", "ANSWERED", "LOSS", "P50", "P90", "P99", "MAX", "WHY"]
    rows = [_row(each) for each in found]
    if command.output.is_wide:
        heads += ["FROM ADDRESS", "INTERFACE", "MTU"]
        for row, each in zip(rows, found, strict=True):
            row += [str(each.way.source), each.way.end.link.name, str(each.way.end.link.mtu)]
    command.output.table(heads, rows)


def _row(echoes: Echoes) -> list[str | Cell]:
    color = "" if not echoes.loss else RED if not echoes.received else YELLOW
    times = [milliseconds(echoes.percentile(percent)) for percent in (50, 90, 99, 100)]
    counted = [Cell(f"{echoes.received} of {echoes.sent}", color), Cell(f"{echoes.loss:.0%}", color)]
    why = echoes.fault or ("" if echoes.received else "no answer")
    return [echoes.way.end.name, echoes.way.to, str(echoes.way.target), *counted, *times, Cell(why, RED)]


def milliseconds(value: float | None) -> str:
    """A time for people."""
    return "" if value is None else f"{value:.3g} ms"


def _count(text: str) -> int:
    return _number(text, 1, _MOST)


def _size(text: str) -> int:
    return _number(text, 64, _LARGEST)


def _number(text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and least <= int(text[:9]) <= most:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number from {least} to {most}")


def _interval(text: str) -> float:
    if (found := seconds(text)) < _SHORTEST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {_SHORTEST:g} seconds or more")
    return found
