"""What `nsm mesh up` would do with each component, in the order in which they start."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from .control import NotThereError, ask
from .model import Topology
from .plan import START_ORDER, VIEW, Component, plan
from .rundir import RunDir
from .topology import read

START, RESTART, KEEP, REMOVE, LATER = "start", "restart", "keep", "remove", "on demand"


def steps(
    parts: Iterable[Component],
    *,
    changed: Collection[str] = (),
    running: Collection[str] = (),
    gone: Sequence[Component] = (),
) -> list[dict[str, str]]:
    """One step for each component: its name, command, node, and what would be done.

    `changed` are those that are there and are described differently now; `gone` those that are no longer described.
    """
    places = {command: place for place, commands in enumerate((*START_ORDER, (VIEW,))) for command in commands}
    removed = [_step(part, REMOVE) for part in gone]
    return removed + [
        _step(part, _what(part, changed, running)) for part in sorted(parts, key=lambda part: places[part.command])
    ]


def _what(part: Component, changed: Collection[str], running: Collection[str]) -> str:
    if part.name in running:
        return KEEP
    if part.is_waiting:
        return LATER
    return RESTART if part.name in changed else START


def _step(part: Component, what: str) -> dict[str, str]:
    return {"step": what, "component": part.name, "command": part.command, "node": part.node}


def preview(run: RunDir, topology: Topology | None) -> list[dict[str, Any]]:
    """What `up` with `topology` would do, also without one. Raises `MeshCommandError`."""
    request: dict[str, Any] = {"command": "up", "dry_run": True}
    if topology is not None:
        request |= {"text": topology.text, "source": topology.source, "folder": topology.folder}
    try:
        found: list[dict[str, Any]] = ask(run, request)["steps"]
    except NotThereError:
        return [*steps(plan(run, topology or read(None), {}))]
    return found
