"""`nsm check`: what this machine can do, or whether a mesh is well, each fault with a remedy."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nsm.mesh.check import cli as machine
from nsm.mesh.check.model import Finding, State, error, ok, warning, worst
from nsm.view.model import ComponentState, Snapshot, WireState
from nsm.view.source import name_of

from .command import Command, parser_of, run
from .errors import DOWN, OK
from .target import has_begun
from .times import age

if TYPE_CHECKING:
    from nsm.mesh.check.cli import Results

_TARGETS = {"--url", "--view", "--name"}
_HELP = {"-h", "--help"}
_MOST = 20
"""Wires that are listed; of further ones, only how many."""
_CLOCK = 2.0
"""Seconds by which clocks may differ: tokens and records carry times."""
_END = {
    State.OK: "The mesh is well.",
    State.WARNING: "The mesh works, but see the warnings.",
    State.ERROR: "Something in the mesh is not well: see the errors.",
}


def main(arguments: list[str]) -> int:
    """Shows what this machine and this user can do; with --name, --url or --view, whether that mesh is well.

    Exit code 0 if all is well, maybe with warnings, and 1 if not.
    """
    words = {word.partition("=")[0] for word in arguments}
    if not words & (_TARGETS | _HELP):
        return machine.main(arguments)
    return run(parser_of("check", main.__doc__), arguments, lambda command: asyncio.run(_work(command)))


async def _work(command: Command) -> int:
    async with command.target.source() as source:
        await has_begun(source)
        before = datetime.now(UTC)
        snapshot = await source.snapshot()
        after = datetime.now(UTC)
    results = check(snapshot, before, after)
    state = worst([finding for _, findings in results for finding in findings])
    if command.output.is_json:
        command.output.json(machine.as_json(results, state))
    else:
        print("\n".join(machine.lines(results, state, sys.stdout, os.environ, _END)))
    return DOWN if state is State.ERROR else OK


def check(snapshot: Snapshot, before: datetime, after: datetime) -> Results:
    """Groups of findings on a snapshot, which was asked for at `before` and was there at `after`, by our clock."""
    return [
        ("clock", [*_clock(snapshot, before, after)]),
        ("registries", [*_registries(snapshot)]),
        ("nodes", [*_nodes(snapshot)]),
        ("versions", [*_versions(snapshot)]),
        ("endpoints", [*_endpoints(snapshot)]),
        ("wires", [*_wires(snapshot)]),
    ]


def _clock(snapshot: Snapshot, before: datetime, after: datetime) -> Iterator[Finding]:
    early, late = (before - snapshot.at).total_seconds(), (snapshot.at - after).total_seconds()
    apart = max(early, late)
    if apart > _CLOCK:
        which = "behind" if early > late else "ahead of"
        hint = "synchronize the clocks of all hosts, by chrony or systemd-timesyncd: tokens and records carry times"
        yield error("clock", f"the mesh's clock is {apart:.0f} s {which} the clock of this host", hint)
    else:
        yield ok("clock", "the mesh's clock and that of this host agree")


def _registries(snapshot: Snapshot) -> Iterator[Finding]:
    if not snapshot.domains:
        yield warning("registry", "no registry is known: only one manager was asked", "ask a view: --view URL")
    for domain in snapshot.domains:
        name = f"registry-{domain.name}"
        if domain.state == ComponentState.UNHEARD:
            since = f" for {age(domain.heard, snapshot.at)}" if domain.heard is not None else ""
            hint = f"see whether it runs, and whether {domain.registry or 'its address'} is reachable from the view"
            yield error(name, f"the registry of domain {domain.name} has not responded{since}", hint)
        else:
            yield ok(name, f"the registry of domain {domain.name} responds, with {len(domain.nodes)} nodes")


def _nodes(snapshot: Snapshot) -> Iterator[Finding]:
    states = {each.name: each.state for each in snapshot.components}
    for node in snapshot.nodes:
        name = f"node-{node.name}"
        if node.state == ComponentState.UNHEARD:
            since = f" for {age(node.heard, snapshot.at)}" if node.heard is not None else ""
            hint = f"see whether {node.manager or 'its manager'} runs, and whether {node.url or 'it'} is reachable"
            yield error(name, f"the manager of node {node.name} has not responded{since}", hint)
            continue
        away = [each for each in node.forwarders if states.get(each) == ComponentState.UNHEARD]
        if not node.forwarders:
            yield error(name, f"node {node.name} has no forwarder: it can have no wires", "start a forwarder on it")
        elif away:
            yield error(name, f"{', '.join(away)} of node {node.name} does not respond", "see its log; start it again")
        else:
            wires = f"{node.wires} wires" if node.wires != 1 else "1 wire"
            yield ok(name, f"node {node.name}: the manager and {', '.join(node.forwarders)} respond; {wires}")
    if not snapshot.nodes:
        yield error("nodes", "no node has a manager", "start managers, or allow this viewer: NSM_MONITOR_VIEWERS")


def _versions(snapshot: Snapshot) -> Iterator[Finding]:
    known: dict[str, list[str]] = {}
    for each in snapshot.components:
        if each.version:
            known.setdefault(each.version, []).append(each.name)
    if len(known) > 1:
        told = "; ".join(f"{version}: {', '.join(sorted(names))}" for version, names in sorted(known.items()))
        yield warning("versions", f"components have different versions: {told}", "finish the update of all nodes")
    else:
        yield ok("versions", f"all components have version {next(iter(known))}" if known else "no version is reported")


def _endpoints(snapshot: Snapshot) -> Iterator[Finding]:
    is_well = True
    for each in snapshot.endpoints:
        if each.expires is not None and each.expires < snapshot.at:
            is_well = False
            since = age(each.expires, snapshot.at)
            hint = "it has ended, or cannot reach its manager; the registry removes the record if it works"
            yield warning(f"endpoint-{each.name}", f"the record of {each.name} expired {since} ago", hint)
    wanted = {each.service for each in snapshot.attempts} | {each.service for each in snapshot.wires}
    provided = {service for each in snapshot.endpoints for service in each.services}
    for service in sorted(wanted - provided) if snapshot.endpoints or snapshot.domains else []:
        is_well = False
        hint = "start an endpoint that provides it, or mend its name in the client"
        yield error(f"service-{service}", f"clients want {service}, and no endpoint provides it", hint)
    if is_well:
        yield ok("endpoints", f"{len(snapshot.endpoints)} endpoints, each with a valid record")


def _wires(snapshot: Snapshot) -> Iterator[Finding]:
    down = [wire for wire in snapshot.wires if wire.state != WireState.UP]
    faults: list[Finding] = []
    for wire in down:
        name, cause = name_of(wire), wire.cause
        why = f": {cause.sentence}" if cause is not None else ""
        hint = (cause.remedy if cause is not None else "") or f"`nsm why {name}` shows the whole path"
        severity = warning if wire.state in {WireState.HEALING, WireState.UNHEARD} else error
        faults.append(severity(f"wire-{name}", f"{name} to {wire.endpoint or wire.service} is {wire.state}{why}", hint))
    known = {wire.id for wire in snapshot.wires}
    for attempt in snapshot.attempts:
        if attempt.id not in known:
            name, why = name_of(attempt), f": {attempt.cause.sentence}" if attempt.cause is not None else ""
            told = f"{name} to {attempt.service} was requested {attempt.tries} times and does not exist{why}"
            faults.append(error(f"wire-{name}", told, f"`nsm why {name}` shows what was tried"))
    yield from faults[:_MOST]
    if len(faults) > _MOST:
        yield error("wires", f"{len(faults) - _MOST} more wires are not well", "`nsm wires --down` lists them")
    expired = _expired(snapshot)
    for name in expired[:_MOST]:
        yield warning(f"token-{name}", f"a token of {name} has expired", f"`nsm why {name}` shows whose")
    if not faults and not expired:
        yield ok("wires", f"{len(snapshot.wires)} wires, all of them up")


def _expired(snapshot: Snapshot) -> Sequence[str]:
    """Wires that were not renewed in time by a component on their path."""
    return [
        name_of(wire)
        for wire in snapshot.wires
        if wire.state == WireState.UP
        and any(hop.expires is not None and hop.expires < snapshot.at for hop in wire.path)
    ]
