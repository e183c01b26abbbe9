"""`nsm top`: which wires carry most, and what components do and use."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nsm.chains.tools.arguments import count, seconds
from nsm.view.model import ComponentState, Snapshot, Traffic, Wire, WireState
from nsm.view.source import name_of

from . import figures
from .command import Command, parser_of, run
from .errors import DOWN, OK
from .figures import Figures
from .output import BOLD, GREEN, RED, YELLOW, Cell, Output
from .target import has_begun
from .times import age
from .wires import COLORS

if TYPE_CHECKING:
    from nsm.view.source import Source

_WIRES = ("WIRE", "SERVICE", "ENDPOINT", "STATE", "PACKETS/S", "BITS/S", "PACKETS", "BYTES", "DROPS", "LAST PACKET")
_COMPONENTS = ("COMPONENT", "NODE", "STATE", "CALLS/S", "ERRORS/S", "P90", "CPU", "MEMORY")
_SORTS = ("packets", "bytes", "drops")
_PREFIXES = ("", "k", "M", "G", "T")


@dataclass(frozen=True)
class WireRow:
    """What a wire has carried in both directions; rates are None until its counters were read twice."""

    wire: str
    id: str
    service: str
    endpoint: str
    state: WireState
    packets: int = 0
    bytes: int = 0
    drops: int = 0
    packets_per_s: float | None = None
    bytes_per_s: float | None = None
    drops_per_s: float | None = None
    last_packet: datetime | None = None


@dataclass(frozen=True)
class ComponentRow:
    """What a component does and uses; None if that is not known."""

    component: str
    node: str = ""
    state: str = ""
    calls_per_s: float | None = None
    errors_per_s: float | None = None
    p90_ms: float | None = None
    """Within that many milliseconds nine of ten calls were answered; infinite beyond the largest bound."""
    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""


@dataclass
class Rates:
    """Rates between two readings, by the times of the counters themselves: they may be older than the reading."""

    _former: dict[str, Traffic] = field(default_factory=dict)
    _known: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def row(self, wire: Wire) -> WireRow:
        """A wire with its rates."""
        row = WireRow(name_of(wire), wire.id, wire.service, wire.endpoint, wire.state, last_packet=wire.last_packet)
        traffic = wire.traffic
        if traffic is None or traffic.at is None:
            return row
        former = self._former.get(wire.id)
        if former is None or former.at is None or traffic.at > former.at:
            self._former[wire.id] = traffic
            if former is not None and former.at is not None:
                self._note(wire.id, former, traffic, (traffic.at - former.at).total_seconds())
        totals = _totals(traffic)
        rates = self._known.get(wire.id, (None, None, None))
        return replace(
            row,
            packets=totals[0],
            bytes=totals[1],
            drops=totals[2],
            packets_per_s=rates[0],
            bytes_per_s=rates[1],
            drops_per_s=rates[2],
        )

    def _note(self, wire: str, former: Traffic, traffic: Traffic, elapsed: float) -> None:
        grown = [new - old for new, old in zip(_totals(traffic), _totals(former), strict=True)]
        if min(grown) < 0:  # the counters began anew: the wire was made again
            self._known.pop(wire, None)
        else:
            self._known[wire] = (grown[0] / elapsed, grown[1] / elapsed, grown[2] / elapsed)


def _totals(traffic: Traffic) -> tuple[int, int, int]:
    flows = (traffic.to_endpoint, traffic.to_client)
    return sum(each.packets for each in flows), sum(each.bytes for each in flows), sum(each.drops for each in flows)


@dataclass(frozen=True)
class Sample:
    """One reading; `figures` are by the names of components, `faults` say what could not be read."""

    at: float
    snapshot: Snapshot
    figures: Mapping[str, Figures] = field(default_factory=dict)
    faults: Sequence[str] = ()


def main(arguments: list[str]) -> int:
    """Shows the wires that carry most, and what components do and use, again and again; Ctrl-C ends it.

    With --json, or if the output is no terminal, it measures for one interval and prints that.
    """
    parser = parser_of("top", main.__doc__)
    parser.add_argument("-i", dest="interval", type=seconds, default=2.0, metavar="SECONDS", help="interval [2]")
    parser.add_argument("-n", dest="most", type=count(1), default=20, metavar="COUNT", help="show at most so many [20]")
    parser.add_argument("--sort", choices=_SORTS, default="packets", help="by which rate wires are ordered [packets]")
    parser.add_argument("--once", action="store_true", help="only one interval")
    parser.add_argument(
        "--metrics",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="the /metrics of a component, for its calls, errors and latency; repeatable",
    )
    return run(parser, arguments, lambda command: asyncio.run(_work(command)))


async def _work(command: Command) -> int:
    chosen, rates = command.arguments, Rates()
    urls = dict(figures.named(each) for each in chosen.metrics)
    is_once = chosen.once or command.output.is_json or not sys.stdout.isatty()
    async with command.target.source() as source:
        await has_begun(source)
        before = await _sample(command, source, urls)
        rows = [rates.row(wire) for wire in before.snapshot.wires]
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            while True:
                await asyncio.sleep(chosen.interval)
                after = await _sample(command, source, urls)
                rows = [rates.row(wire) for wire in after.snapshot.wires]
                parts = components(before, after)
                if not is_once:
                    print("\033[H\033[2J", end="")
                show(command.output, after, ordered(rows, chosen.sort)[: chosen.most], parts[: chosen.most])
                if is_once:
                    break
                before = after
    return DOWN if any(row.state != WireState.UP for row in rows) else OK


async def _sample(command: Command, source: Source, urls: Mapping[str, str]) -> Sample:
    known, faults = await asyncio.gather(asyncio.to_thread(_processes, command), _metrics(command, urls))
    snapshot = await source.snapshot()
    return Sample(time.monotonic(), snapshot, {**known, **faults[0]}, faults[1])


def _processes(command: Command) -> dict[str, Figures]:
    """The processes of a local mesh."""
    mesh = command.target.run()
    if mesh is None:
        return {}
    from .local import processes_of  # noqa: PLC0415 - only for local meshes

    return {name: figures.of_process(pid) for name, pid in processes_of(mesh).items()}


async def _metrics(command: Command, urls: Mapping[str, str]) -> tuple[dict[str, Figures], list[str]]:
    found, faults = {}, []
    for name, url in urls.items():
        try:
            found[name] = figures.read(await asyncio.to_thread(figures.fetch, url, command.target.timeout))
        except (OSError, ValueError) as error:
            faults.append(f"{name}: {error}")
    return found, faults


def ordered(rows: Sequence[WireRow], by: str) -> list[WireRow]:
    """Wires by their present rate, then by what they have carried, the most first."""

    def key(row: WireRow) -> tuple[float, int, str]:
        rate: float | None = getattr(row, f"{by}_per_s")
        return -(rate or 0.0), -getattr(row, by), row.wire

    return sorted(rows, key=key)


def components(before: Sample, after: Sample) -> list[ComponentRow]:
    """What components did between two readings, those that use most processor time first."""
    known = {each.name: each for each in after.snapshot.components}
    elapsed = max(after.at - before.at, 1e-6)
    rows = []
    for name in dict.fromkeys([*known, *after.figures]):
        old, new = before.figures.get(name, Figures()), after.figures.get(name, Figures())
        slowest = figures.quantile(old.buckets, new.buckets, 0.9)
        rows.append(
            ComponentRow(
                component=name,
                node=known[name].node if name in known else "",
                state=known[name].state if name in known else "",
                calls_per_s=_rate(old.calls, new.calls, elapsed),
                errors_per_s=_rate(old.errors, new.errors, elapsed),
                p90_ms=None if slowest is None else slowest * 1000,
                cpu=_rate(old.cpu, new.cpu, elapsed),
                memory=new.memory,
            )
        )
    return sorted(rows, key=lambda row: (-(row.cpu or 0.0), -(row.calls_per_s or 0.0), row.component))


def _rate(before: float | None, after: float | None, elapsed: float) -> float | None:
    """None also if the counter began anew."""
    return None if before is None or after is None or after < before else (after - before) / elapsed


def show(output: Output, sample: Sample, wires: Sequence[WireRow], parts: Sequence[ComponentRow]) -> None:
    """Print both tables."""
    if output.is_json:
        output.json({"wires": [_plain(each) for each in wires], "components": [_plain(each) for each in parts]})
        return
    everything = sample.snapshot.wires
    down = sum(wire.state != WireState.UP for wire in everything)
    counts = f"{len(everything)} wires, {down} not up, {len(sample.snapshot.attempts)} wanted"
    output.parts([Cell(f"{datetime.now().astimezone():%H:%M:%S}  {counts}", BOLD)])
    now = datetime.now(UTC)
    output.table(_WIRES, [_wire_cells(each, now) for each in wires])
    output.line()
    output.table(_COMPONENTS, [_component_cells(each) for each in parts])
    for fault in sample.faults:
        output.line(fault, RED)


def _plain(row: WireRow | ComponentRow) -> dict[str, object]:
    """For JSON, which has no infinite numbers."""
    found = asdict(row)
    for key, value in found.items():
        if isinstance(value, datetime):
            found[key] = value.isoformat()
        elif isinstance(value, float):
            found[key] = round(value, 3) if math.isfinite(value) else None
    return found


def _wire_cells(row: WireRow, now: datetime) -> Sequence[str | Cell]:
    return (
        row.wire,
        row.service,
        row.endpoint,
        Cell(row.state, COLORS[row.state]),
        _short(row.packets_per_s),
        _short(None if row.bytes_per_s is None else row.bytes_per_s * 8),
        _short(row.packets),
        _short(row.bytes),
        Cell(_short(row.drops), RED if row.drops_per_s else ""),
        age(row.last_packet, now),
    )


def _component_cells(row: ComponentRow) -> Sequence[str | Cell]:
    color = {ComponentState.UP: GREEN, ComponentState.UNHEARD: YELLOW}.get(row.state, "")  # type: ignore[call-overload]
    memory = "" if row.memory is None else f"{row.memory / (1 << 20):.1f} MiB"
    slowest = "" if row.p90_ms is None else "more" if math.isinf(row.p90_ms) else f"{row.p90_ms:g} ms"
    return (
        row.component,
        row.node,
        Cell(row.state, color),
        _short(row.calls_per_s),
        Cell(_short(row.errors_per_s), RED if row.errors_per_s else ""),
        slowest,
        "" if row.cpu is None else f"{row.cpu * 100:.0f}%",
        memory,
    )


def _short(value: float | None) -> str:
    """A number in three digits with a prefix; empty if it is unknown."""
    if value is None:
        return ""
    place = 0
    while value >= 999.5 and place < len(_PREFIXES) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.3g}{_PREFIXES[place]}"
