"""`nsm wires`: all wires of a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nsm.view.form import to_json
from nsm.view.model import Attempt, Cause, Change, Snapshot, Wire, WireState
from nsm.view.source import name_of

from .command import Command, parser_of, run
from .errors import DOWN, OK
from .output import GREEN, RED, YELLOW, Cell
from .target import has_begun
from .times import age

if TYPE_CHECKING:
    import argparse

    from nsm.chains.tools.arguments import Parser
    from nsm.view.source import Source

COLORS = {
    WireState.UP: GREEN,
    WireState.DOWN: RED,
    WireState.HEALING: YELLOW,
    WireState.PENDING: RED,
    WireState.UNHEARD: YELLOW,
}
_HEADS = ("WIRE", "SERVICE", "ENDPOINT", "WAY", "ADDRESSES", "STATE", "SINCE", "LAST PACKET", "CAUSE")
_WIDE_HEADS = ("NODE", "ENDPOINT NODE", "DOMAIN", "ROUTES", "MTU", "ID")
_LONGEST_CAUSE = 72
GIVEN_UP = timedelta(minutes=10)
"""After that time without another try a wire is not listed: its client has given it up, or is gone."""


def main(arguments: list[str]) -> int:
    """Lists the wires of a mesh, and those that clients want and do not get, with the cause if one is not up."""
    parser = add_options(parser_of("wires", main.__doc__))
    return run(parser, arguments, lambda command: asyncio.run(_work(command)))


def add_options(parser: Parser) -> Parser:
    """Add the options that choose wires."""
    parser.add_argument("--down", action="store_true", help="only those that are not up")
    for name, about in (
        ("client", "only those of this client"),
        ("endpoint", "only those to this endpoint"),
        ("service", "only those of this network service"),
        ("node", "only those that begin or end on this node"),
    ):
        parser.add_argument(f"--{name}", default="", metavar="NAME", help=about)
    parser.add_argument("--watch", action="store_true", help="keep printing changes")
    return parser


async def _work(command: Command) -> int:
    async with command.target.source() as source:
        if command.arguments.watch:
            await follow(command, source)
        wires, attempts = await asyncio.gather(source.wires(), source.attempts())
        if not wires:
            await has_begun(source)
            wires, attempts = await asyncio.gather(source.wires(), source.attempts())
    return show(command, wires, attempts, datetime.now(UTC))


async def follow(command: Command, source: Source) -> None:
    """Print the chosen wires, and then each change of one, endlessly."""
    async for change in source.changes():
        _print_change(command, change)


def pending(attempts: Iterable[Attempt], wires: Iterable[Wire]) -> Iterator[Wire]:
    """The wires that do not exist, from the attempts to make them."""
    there = {(wire.client, wire.id) for wire in wires}
    for each in attempts:
        if (each.client, each.id) not in there:
            yield Wire(
                id=each.id,
                client=each.client,
                service=each.service,
                interface=each.interface,
                node=each.node,
                labels=each.labels,
                state=WireState.PENDING,
                since=each.first,
                cause=each.cause,
            )


def show(command: Command, wires: Sequence[Wire], attempts: Sequence[Attempt], now: datetime) -> int:
    """Print the wires that the options choose; returns the exit code."""
    output, chosen = command.output, command.arguments
    lately = [each for each in attempts if each.last is None or now - each.last < GIVEN_UP]
    shown = [wire for wire in [*wires, *pending(lately, wires)] if _is_wanted(wire, chosen)]
    if output.is_json:
        output.json({"wires": [to_json(wire) for wire in shown]})
    elif not shown:
        output.line("No wire fits." if wires or attempts else "There are no wires.")
    else:
        heads = (*_HEADS, *_WIDE_HEADS) if output.is_wide else _HEADS
        output.table(heads, (_row(wire, now, is_wide=output.is_wide) for wire in shown))
    return DOWN if any(wire.state != WireState.UP for wire in shown) else OK


def _is_wanted(wire: Wire, chosen: argparse.Namespace) -> bool:
    return (
        not (chosen.down and wire.state == WireState.UP)
        and chosen.client in ("", wire.client)
        and chosen.endpoint in ("", wire.endpoint)
        and chosen.service in ("", wire.service, f"{wire.service}@{wire.domain}")
        and (not chosen.node or chosen.node in (wire.node, wire.endpoint_node))
    )


def _row(wire: Wire, now: datetime, *, is_wide: bool) -> Sequence[str | Cell]:
    addresses = " → ".join(", ".join(each) for each in (wire.client_addresses, wire.endpoint_addresses) if each)
    row: list[str | Cell] = [
        name_of(wire),
        f"{wire.service}@{wire.domain}" if wire.domain else wire.service,
        wire.endpoint,
        ", ".join(wire.way),
        addresses,
        Cell(wire.state, COLORS[wire.state]),
        age(wire.since, now),
        age(wire.last_packet, now),
        sentence(wire.cause) if is_wide else _cut(sentence(wire.cause)),
    ]
    if is_wide:
        mtu = str(wire.mtu) if wire.mtu else ""
        row += [wire.node, wire.endpoint_node, wire.client_domain, ", ".join(wire.routes), mtu, wire.id]
    return row


def sentence(cause: Cause | None) -> str:
    """What a cause says, and where it occurred."""
    if cause is None:
        return ""
    return f"{cause.component}: {cause.sentence}" if cause.component else cause.sentence


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_CAUSE else f"{text[: _LONGEST_CAUSE - 2]}.."


def _print_change(command: Command, change: Change) -> None:
    if change.snapshot is not None:
        _print_snapshot(command, change.snapshot)
        return
    output, wire = command.output, change.wire
    if wire is None and change.attempt is not None:
        wire = next(pending([change.attempt], ()))
    if wire is None or not _is_wanted(wire, command.arguments):
        return
    if output.is_json:
        output.json(to_json(wire))
        return
    about = f" to {wire.endpoint or wire.service}"
    why = f": {sentence(wire.cause)}" if wire.cause is not None else ""
    at = datetime.now().astimezone().strftime("%H:%M:%S")
    output.parts([f"{at}  {name_of(wire)}{about}  ", Cell(wire.state, COLORS[wire.state]), why])


def _print_snapshot(command: Command, snapshot: Snapshot) -> None:
    if command.output.is_json:
        for wire in [*snapshot.wires, *pending(snapshot.attempts, snapshot.wires)]:
            if _is_wanted(wire, command.arguments):
                command.output.json(to_json(wire))
    else:
        show(command, snapshot.wires, snapshot.attempts, snapshot.at)
