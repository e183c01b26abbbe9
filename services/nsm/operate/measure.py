"""`nsm measure`: what a wire carries, beside what its mechanism promises."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nsm.chains.tools.arguments import seconds

from .command import OK, Command, OperatorError, parser_of, run
from .errors import DOWN
from .naming import name_of
from .output import GREEN, RED, YELLOW, Cell
from .ping import about, as_json, milliseconds

if TYPE_CHECKING:
    from nsm.view.model import Wire

    from .probes.measure import Measured, Passed

_LONGEST, _SHORTEST, _BESIDES = 3600.0, 0.1, 2.0
_TAKES = {
    "VXLAN": "VXLAN takes 54 bytes of each packet between the nodes, 74 over IPv6",
    "WIREGUARD": "WireGuard takes 60 bytes of each packet between the nodes, 80 over IPv6",
    "VLAN": "a VLAN takes none of the MTU of its uplink",
    "VETH": "a pair of interfaces carries packets whole, up to its own MTU",
}
"""What each way leaves of the MTU, by its name in upper case."""


def main(arguments: list[str]) -> int:
    """What a wire carries in both directions: throughput, loss, delay, jitter, and the MTU, found by real packets."""
    parser = parser_of("measure", main.__doc__)
    parser.add_argument("wire", metavar="WIRE", help="CLIENT/INTERFACE, a connection id or a unique beginning of it")
    parser.add_argument(
        "--seconds", type=_seconds, default=2.0, metavar="N", help="measure throughput for that long, each way [2]"
    )
    parser.add_argument("--udp", action="store_true", help="by datagrams, as fast as they can be sent, instead of TCP")
    parser.add_argument("-6", dest="v6", action="store_true", help="by the IPv6 addresses of a wire that has both")
    return run(parser, arguments, _measure)


def _measure(command: Command) -> int:
    from .probes.echo import reason, ways_of  # noqa: PLC0415 - the parser's faults need none of it
    from .probes.ends import CLIENT, ENDPOINT  # noqa: PLC0415
    from .probes.measure import measure  # noqa: PLC0415
    from .probes.sought import both_ends, need  # noqa: PLC0415

    chosen = command.arguments
    with both_ends(command.target, chosen.wire) as (wire, ends):
        need(wire, ends, [CLIENT, ENDPOINT], command.target)
        ways = ways_of(wire, ends)
        wanted = [way for way in ways if way.source.version == 6] if chosen.v6 else ways[:2]
        if not wanted:
            kind = "IPv6" if chosen.v6 else "IP"
            raise OperatorError(f"{name_of(wire)} has no {kind} addresses at both ends; there is nothing to measure")
        if sys.stderr.isatty():
            print(f"this takes some {2 * chosen.seconds + _BESIDES:.0f} seconds ..", file=sys.stderr, flush=True)
        try:
            found = measure(wanted, [*ends.values()], chosen.seconds, udp=chosen.udp)
        except OSError as error:
            raise OperatorError(f"cannot measure {name_of(wire)}: {reason(error)}") from None
    if command.output.is_json:
        command.output.json(_as_json(wire, found))
    else:
        _print(command, wire, found)
    return OK if is_well(found) else DOWN


def is_well(found: Measured) -> bool:
    """Whether packets of the promised size pass, and data in both directions."""
    return found.mtu == found.promised_mtu and all(each.bytes and not each.fault for each in found.passed)


def _as_json(wire: Wire, found: Measured) -> dict[str, Any]:
    return {
        **about(wire),
        "mtu": {"found": found.mtu, "promised": found.promised_mtu},
        "round_trip": [as_json(each) for each in found.echoes],
        "directions": [_direction(each) for each in found.passed],
    }


def _direction(passed: Passed) -> dict[str, Any]:
    return {
        "from": passed.way.end.name,
        "to": passed.way.to,
        "protocol": passed.protocol,
        "bits_per_s": round(passed.bits_per_s),
        "seconds": round(passed.seconds, 3),
        "bytes": passed.bytes,
        "loss": passed.loss,
        "retransmissions": passed.retransmissions,
        "paced_loss": passed.paced_loss,
        "delay_ms": passed.delay_ms,
        "jitter_ms": passed.jitter_ms,
        "fault": passed.fault,
    }


def _print(command: Command, wire: Wire, found: Measured) -> None:
    out, way = command.output, ", ".join(wire.way)
    out.line(f"{name_of(wire)} to {wire.endpoint or wire.service} over {way or 'an unknown way'}")
    out.parts(["MTU: ", _mtu(found), *(f"; {_TAKES[each.upper()]}" for each in wire.way if each.upper() in _TAKES)])
    heads = ["FROM", "TO", "PROTOCOL", "THROUGHPUT", "LOST", "RESENT", "DELAY", "JITTER", "ROUND TRIP", "WHY"]
    out.table(heads, [_row(each, found) for each in found.passed])


def _mtu(found: Measured) -> Cell:
    if found.mtu is None:
        return Cell(f"no packet came back, of {found.promised_mtu} bytes promised", RED)
    if found.mtu < found.promised_mtu:
        return Cell(f"{found.mtu} bytes pass whole, not the {found.promised_mtu} that the interfaces promise", RED)
    return Cell(f"{found.mtu} bytes pass whole, as the interfaces promise", GREEN)


def _row(passed: Passed, found: Measured) -> list[str | Cell]:
    lost = passed.paced_loss if passed.loss is None else passed.loss
    echoes = next((each for each in found.echoes if each.way == passed.way), None)
    return [
        passed.way.end.name,
        passed.way.to,
        passed.protocol,
        Cell(throughput(passed.bits_per_s), RED if not passed.bytes else ""),
        Cell(f"{lost:.2%}", YELLOW if passed.paced_loss else ""),
        "" if passed.retransmissions is None else str(passed.retransmissions),
        milliseconds(passed.delay_ms),
        milliseconds(passed.jitter_ms),
        milliseconds(echoes.percentile(50)) if echoes is not None else "",
        Cell(passed.fault, RED),
    ]


def throughput(bits_per_s: float) -> str:
    """A rate for people."""
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_s >= size:
            return f"{bits_per_s / size:.2f} {unit}"
    return f"{bits_per_s:.0f} bit/s"


def _seconds(text: str) -> float:
    if not _SHORTEST <= (found := seconds(text)) <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {_SHORTEST:g} to {_LONGEST:g} seconds")
    return found
