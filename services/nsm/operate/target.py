"""Whom a command asks: the local mesh, one node's manager, or a view."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import OperatorError, UsageError
from .http import Http


@dataclass(frozen=True)
class Target:
    """Exactly one of `mesh`, `manager` and `view` is set; `timeout` is in seconds."""

    timeout: float
    mesh: str = ""
    """The name of a local mesh."""
    manager: str = ""
    """The URL of a node's manager."""
    view: str = ""
    """The URL of a view."""

    def __str__(self) -> str:
        if self.view:
            return f"the view at {self.view}"
        return f"the manager at {self.manager}" if self.manager else f"mesh {self.mesh!r}"

    def http(self) -> Http:
        """The API of the view: the named one, or that of the local mesh. Raises `OperatorError` if there is none."""
        if self.view:
            return Http(self.view, self.timeout)
        if self.manager:
            raise UsageError("a manager cannot answer this; name the view of the mesh with --view")
        return Http(view_of(self.mesh), self.timeout)


def target_of(mesh: str | None, manager: str | None, view: str | None, timeout: float) -> Target:
    """The target of a command line. Raises `UsageError` for an invalid URL or mesh name."""
    if view is not None:
        if not view.startswith(("http://", "https://", "unix://")):
            raise UsageError(f"--view {view!r}: expected http://host:port or unix:///path")
        return Target(timeout, view=view)
    if manager is not None:
        return Target(timeout, manager=manager)
    from nsm.mesh.rundir import DEFAULT_NAME  # noqa: PLC0415 - only for local meshes

    return Target(timeout, mesh=mesh or DEFAULT_NAME)


def view_of(mesh: str) -> str:
    """The URL of a local mesh's view. Raises `OperatorError` if the mesh is not up."""
    from nsm.mesh.rundir import MeshCommandError, RunDir  # noqa: PLC0415 - as above

    try:
        run = RunDir.of(mesh)
    except MeshCommandError as error:
        raise UsageError(str(error)) from None
    socket = run.socket_of("view")
    if not socket.exists():
        raise OperatorError(f"{run.absence()}; `nsm mesh up` starts one, --url and --view name another mesh")
    return f"unix://{socket}"
