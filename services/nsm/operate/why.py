"""`nsm why WIRE`: why a wire is not up, or what was tried for one that does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nsm.chains.errors import NotFound
from nsm.view.form import to_json
from nsm.view.model import Attempt, Cause, Event, Hop, HopState, Wire, WireState
from nsm.view.source import name_of

from .command import Command, parser_of, run
from .errors import DOWN, OK, OperatorError
from .local import Part, parts_of
from .naming import find_wire
from .output import BOLD, DIM, GREEN, RED, YELLOW, Cell, Output
from .target import has_begun
from .times import age, clock
from .wires import COLORS, pending

if TYPE_CHECKING:
    from nsm.view.source import Source

_MARKS = {HopState.UP: ("√", "ok", GREEN), HopState.DOWN: ("\N{MULTIPLICATION SIGN}", "no", RED)}
_OTHER_MARK = ("?", "?", YELLOW)
_MOST_EVENTS = 10
_REMEDIES = {
    "Unavailable": "check that the component runs and that its node can be reached",
    "DeadlineExceeded": "check that the component runs and responds: its log shows what it waits for",
    "manager-unresponsive": "check that the manager runs: nothing is known about wires of its node until it responds",
    "PeerLost": "check that the component runs, and start it again if it does not",
    "Internal": "this is a defect: please report it with the component's log",
}
"""What to do where the component gives no remedy."""


@dataclass(frozen=True)
class Found:
    """What is known about one wire."""

    wire: Wire
    attempt: Attempt | None
    events: Sequence[Event]
    ended: Sequence[Part]
    """The processes on its path that do not run, for a local mesh."""

    @property
    def hop(self) -> Hop | None:
        """The first hop that is not well; with preference for one that says why."""
        unwell = [hop for hop in self.wire.path if hop.state not in (HopState.UP, HopState.UNKNOWN)]
        return next((hop for hop in unwell if hop.cause is not None), unwell[0] if unwell else None)

    @property
    def cause(self) -> Cause | None:
        """Why it is not up."""
        if self.wire.state == WireState.UP:
            return None
        hop = self.hop
        return self.wire.cause or (hop.cause if hop is not None else None)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.ended:
            return self.ended[0].remedy
        cause = self.cause
        return (cause.remedy or _REMEDIES.get(cause.code, "")) if cause is not None else ""


def main(arguments: list[str]) -> int:
    """Shows the path of a wire hop by hop, the first hop that is not well, why, and what to do.

    For a wire that does not exist it shows what was tried, how often, and what each candidate answered. Exit code 0 if
    the wire is up, 1 if not.
    """
    parser = parser_of("why", main.__doc__)
    parser.add_argument(
        "wire", metavar="WIRE", help="client/nsm-1, a client with one wire, or (the beginning of) an id"
    )
    return run(parser, arguments, lambda command: asyncio.run(_work(command)))


async def _work(command: Command) -> int:
    async with command.target.source() as source:
        found = await look_up(command, source, command.arguments.wire)
    show(command.output, found)
    return OK if found.wire.state == WireState.UP else DOWN


async def look_up(command: Command, source: Source, name: str) -> Found:
    """What is known about the wire `name`. Raises `UsageError` if it names none, or several."""
    wire, attempts = await asyncio.gather(_wire(source, name), source.attempts())
    if wire is None:
        await has_begun(source)
        wires, attempts = await asyncio.gather(source.wires(), source.attempts())
        known = [*wires, *pending(attempts, wires)]
        names = {name_of(each) for each in known}
        wire = find_wire([*known, *(each for each in _wanted(command) if name_of(each) not in names)], name)
    attempt = next((each for each in attempts if each.id == wire.id), None)
    return Found(wire, attempt, await source.events(wire.id), _ended(command, wire))


async def _wire(source: Source, name: str) -> Wire | None:
    try:
        return await source.wire(name)
    except NotFound:
        return None


def _wanted(command: Command) -> Sequence[Wire]:
    """The wires that a local mesh should have: no manager knows one that could never be requested."""
    mesh = command.target.run()
    if mesh is None:
        return []
    from .local import wanted_wires  # noqa: PLC0415 - rarely needed

    return wanted_wires(mesh)


def _ended(command: Command, wire: Wire) -> Sequence[Part]:
    """The processes on the path of a wire of a local mesh that do not run; for one without a path, its client's."""
    mesh = command.target.run()
    if mesh is None:
        return []
    names = [hop.name for hop in wire.path] or [wire.client]
    try:
        return [part for part in parts_of(mesh, [*names, wire.endpoint]) if not part.runs]
    except OperatorError:
        return []


def show(output: Output, found: Found) -> None:
    """Print what is known about a wire."""
    if output.is_json:
        output.json(_as_json(found))
    else:
        _print(output, found, datetime.now(UTC))


def _as_json(found: Found) -> dict[str, object]:
    hop, cause = found.hop, found.cause
    return {
        "wire": to_json(found.wire),
        "hop": hop.name if hop is not None else None,
        "cause": to_json(cause) if cause is not None else None,
        "remedy": found.remedy or None,
        "attempt": to_json(found.attempt) if found.attempt is not None else None,
        "ended": {part.name: part.state for part in found.ended},
        "events": [to_json(event) for event in found.events],
    }


def _print(output: Output, found: Found, now: datetime) -> None:
    wire = found.wire
    since = f" for {age(wire.since, now)}" if wire.since is not None else ""
    where = f" to {wire.endpoint}" if wire.endpoint else ""
    service = f" of {wire.service}@{wire.domain}" if wire.domain else f" of {wire.service}"
    output.parts([Cell(name_of(wire), BOLD), f"{where}{service}: ", Cell(wire.state, COLORS[wire.state]), since])
    _print_path(output, wire, now)
    _print_cause(output, found)
    if found.attempt is not None:
        _print_attempt(output, found.attempt, now)
    _print_events(output, found.events)


def _print_path(output: Output, wire: Wire, now: datetime) -> None:
    if not wire.path:
        return
    if wire.state != WireState.UP and all(hop.state == HopState.UP for hop in wire.path):
        output.line("as it was when it was up:", DIM)
    marks = [_MARKS.get(hop.state, _OTHER_MARK) for hop in wire.path]
    output.table(
        ("", "HOP", "KIND", "NODE", "STATE", "SINCE", "GOES ON BY", "INTERFACE", "SET UP"),
        [
            (
                Cell(mark[0] if output.has_marks else mark[1], mark[2]),
                hop.name,
                hop.kind,
                hop.node,
                Cell(hop.state, mark[2]),
                age(hop.since, now),
                hop.mechanism,
                hop.interface,
                f"{hop.elapsed_ms:.1f} ms" if hop.elapsed_ms is not None else "",
            )
            for hop, mark in zip(wire.path, marks, strict=True)
        ],
    )


def _print_cause(output: Output, found: Found) -> None:
    cause = found.cause
    if cause is not None:
        hop = cause.component or (found.hop.name if found.hop is not None else "")
        element = f" ({cause.element})" if cause.element else ""
        output.parts(
            ["why:        ", Cell(f"{hop}: {cause.sentence}" if hop else cause.sentence, RED), Cell(element, DIM)]
        )
    for part in found.ended:
        output.parts(["process:    ", Cell(f"{part.name} {part.state}", RED)])
    if found.remedy:
        output.line(f"what to do: {found.remedy}")


def _print_attempt(output: Output, attempt: Attempt, now: datetime) -> None:
    if attempt.reason is not None:
        output.line(f"heals, since {attempt.reason.sentence}")
    times = "once" if attempt.tries == 1 else f"{attempt.tries} times"
    output.line(f"tried:      {times} since {clock(attempt.first)}, the last time {age(attempt.last, now)} ago")
    rows = [(each.endpoint, str(each.tries), age(each.at, now), each.sentence) for each in attempt.candidates]
    if rows:
        output.table(("CANDIDATE", "TRIES", "LAST", "ANSWER"), rows)


def _print_events(output: Output, events: Sequence[Event]) -> None:
    if events:
        output.line("events:")
    for event in events[-_MOST_EVENTS:]:
        why = (
            f": {event.cause.sentence}"
            if event.cause is not None and event.cause.sentence not in event.sentence
            else ""
        )
        output.line(f"  {clock(event.at)}  {event.sentence}{why}")
