"""What the supervisor of a local mesh knows besides its view: which processes run, and which wires are wanted."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsm.view.model import Cause, Wire, WireState

from .errors import OperatorError

if TYPE_CHECKING:
    from nsm.mesh.rundir import RunDir

_NOT_STARTED = "was not started"


@dataclass(frozen=True)
class Part:
    """A process of a local mesh."""

    name: str
    state: str
    """Such as ``was killed by SIGKILL``."""
    remedy: str = ""
    """What to do if it does not run; empty if it does."""

    @property
    def runs(self) -> bool:
        """Whether it runs, and is not stopped."""
        return not self.remedy


def parts_of(mesh: RunDir, names: Collection[str]) -> Sequence[Part]:
    """The processes with these names. Raises `OperatorError` if the supervisor does not respond."""
    components = _ask(mesh, {"command": "components"}).get("components", [])
    return [_part(mesh, each["name"], each["pid"], each["status"]) for each in components if each["name"] in names]


def has_view(mesh: RunDir) -> bool:
    """Whether the mesh has a view, or starts one. Raises `OperatorError`."""
    parts = parts_of(mesh, ["view"])
    return not parts or parts[0].runs or parts[0].state == _NOT_STARTED


def wanted_wires(mesh: RunDir) -> Sequence[Wire]:
    """The wires that the mesh's file asks for and that do not exist, with the reason if the supervisor knows one."""
    try:
        status = _ask(mesh, {"command": "status"})
    except OperatorError:
        return []
    return [
        Wire(
            id=f"{wire['client']}/{wire['interface']}",
            client=wire["client"],
            service=wire["service"],
            interface=wire["interface"],
            state=WireState.PENDING,
            cause=Cause(sentence=wire["reason"]) if wire.get("reason") else None,
        )
        for wire in status.get("wires", [])
        if not wire["path"]
    ]


def _part(mesh: RunDir, name: str, pid: int, status: int | None) -> Part:
    start = f"`{mesh.command(f'start {name}')}` starts {name} again"
    if status is not None:
        return Part(name, _ending(status), start)
    if not pid:
        return Part(name, _NOT_STARTED, start)
    if _is_stopped(pid):
        resume = mesh.command(f"kill {name} --signal CONT")
        return Part(name, "is stopped by a signal: it does not respond", f"`{resume}` lets it go on")
    return Part(name, "runs")


def _ending(status: int) -> str:
    if status >= 0:
        return f"has ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _is_stopped(pid: int) -> bool:
    """Whether a signal, or a debugger, stopped the process."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            in "tT"
        )
    except (OSError, IndexError):
        return False


def _ask(mesh: RunDir, request: dict[str, Any]) -> dict[str, Any]:
    from nsm.mesh.control import ask  # noqa: PLC0415 - only for local meshes
    from nsm.mesh.rundir import MeshCommandError  # noqa: PLC0415

    try:
        return ask(mesh, request, timeout=10.0)
    except MeshCommandError as error:
        raise OperatorError(str(error)) from None
