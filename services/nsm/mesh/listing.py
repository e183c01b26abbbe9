"""The local meshes of this user, for `nsm mesh ls`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .control import ask
from .rundir import MeshCommandError, RunDir

_TIMEOUT = 5.0
UP, STARTING, UNRESPONSIVE, KILLED, FAILED = "up", "starting or stopping", "does not respond", "killed", "failed"


def meshes() -> list[dict[str, Any]]:
    """Each mesh of this user: name, state, since when, its nodes and wires, its folder, and what to do about it."""
    return [_mesh(run) for run in RunDir.all()]


def _mesh(run: RunDir) -> dict[str, Any]:
    mesh = {"mesh": run.name, "state": FAILED, "since": "", "nodes": [], "wires": 0, "down": 0, "folder": str(run.path)}
    if run.is_up():
        return mesh | {"since": _since(run), "hint": ""} | _state_of(run)
    if run.is_held():
        return mesh | {"state": STARTING, "hint": ""}
    if run.path.exists():
        return mesh | {"state": KILLED, "hint": f"`{run.command('down')}` removes what is left"}
    return mesh | {"folder": str(run.kept_logs), "hint": f"`{run.command('logs')}` shows why"}


def _state_of(run: RunDir) -> dict[str, Any]:
    try:
        status = ask(run, {"command": "status"}, timeout=_TIMEOUT)
    except MeshCommandError as error:
        return {"state": UNRESPONSIVE, "hint": str(error)}
    down = [wire for wire in status["wires"] if wire["state"] != "UP"]
    hint = f"`{run.command('status')}` shows which wires are down" if down else ""
    nodes = [node["name"] for node in status["nodes"]]
    return {"state": UP, "nodes": nodes, "wires": len(status["wires"]), "down": len(down), "hint": hint}


def _since(run: RunDir) -> str:
    try:
        return datetime.fromtimestamp(run.control.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except FileNotFoundError:
        return ""


def table(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows for people, with their heads."""
    rows: list[tuple[str, ...]] = [("MESH", "STATE", "SINCE", "NODES", "WIRES", "")]
    for mesh in found:
        since = datetime.fromisoformat(mesh["since"]).astimezone().strftime("%Y-%m-%d %H:%M") if mesh["since"] else "-"
        wires = f"{mesh['wires']}, {mesh['down']} down" if mesh["down"] else str(mesh["wires"])
        rows.append((mesh["mesh"], mesh["state"], since, ", ".join(mesh["nodes"]) or "-", wires, mesh["hint"]))
    return rows
