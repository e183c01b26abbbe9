"""Whom a command asks: the local mesh, one node's manager, or a view."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import OperatorError, UsageError

if TYPE_CHECKING:
    from nsm.mesh.rundir import RunDir
    from nsm.view.source import Source

_LOOK_AGAIN, _LONGEST_START, _LONGEST_BEGIN = 0.05, 8.0, 3.0
"""Seconds: between two looks at a view that is starting, until it has to be there, and until it knows the managers."""
_SOCKET = "SPIFFE_ENDPOINT_SOCKET"
_SCHEMES = ("http://", "https://", "unix://")


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

    def run(self) -> RunDir | None:
        """The folder of the local mesh; None for any other target."""
        if not self.mesh:
            return None
        from nsm.mesh.rundir import RunDir  # noqa: PLC0415 - only for local meshes

        return RunDir.of(self.mesh)

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        """What the target knows about wires. Raises `MeshError`, and `OperatorError` if a local mesh is not up."""
        if self.manager:
            async with _manager(self.manager, self.timeout) as source:
                yield source
            return
        from nsm.view.client import ViewClient  # noqa: PLC0415 - each target loads only what it needs

        url = self.view or await _view_of(self.run(), self.timeout)
        async with ViewClient.connect(url, timeout=self.timeout) as client:
            yield client


async def has_begun(source: Source) -> None:
    """Wait until a view that has just started has heard from each manager once; for some seconds at most."""
    from nsm.view.model import ComponentState  # noqa: PLC0415 - as above

    end = time.monotonic() + _LONGEST_BEGIN
    while time.monotonic() < end:
        nodes = (await source.snapshot()).nodes
        if nodes and all(node.state != ComponentState.UNKNOWN for node in nodes):
            return
        await asyncio.sleep(_LOOK_AGAIN)


def target_of(mesh: str | None, manager: str | None, view: str | None, timeout: float) -> Target:
    """The target of a command line. Raises `UsageError` for an invalid URL or mesh name."""
    if view is not None:
        if not view.startswith(_SCHEMES):
            raise UsageError(f"--view {view!r}: expected http://host:port or unix:///path")
        return Target(timeout, view=view)
    if manager is not None:
        return Target(timeout, manager=manager)
    from nsm.mesh.rundir import DEFAULT_NAME, MeshCommandError, RunDir  # noqa: PLC0415 - only for local meshes

    try:
        return Target(timeout, mesh=RunDir.of(mesh or DEFAULT_NAME).name)
    except MeshCommandError as error:
        raise UsageError(str(error)) from None


async def _view_of(run: RunDir | None, timeout: float) -> str:
    """The URL of a local mesh's view, which starts just after the mesh."""
    assert run is not None
    path = str(run.socket_of("view"))
    if not _listens(path) and not run.is_up():
        raise OperatorError(f"{run.absence()}; `nsm mesh up` starts it, --url and --view name another mesh")
    from .local import has_view  # noqa: PLC0415 - rarely needed

    end = time.monotonic() + min(timeout or _LONGEST_START, _LONGEST_START)
    while not _listens(path):
        if time.monotonic() >= end or not has_view(run):
            raise OperatorError(f"mesh {run.name!r} has no view; `{run.command('logs view')}` shows what it last said")
        await asyncio.sleep(_LOOK_AGAIN)
    return f"unix://{path}"


def _listens(path: str) -> bool:
    """Whether a process listens on the socket at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@asynccontextmanager
async def _manager(url: str, timeout: float) -> AsyncIterator[Source]:
    from nsm.chains import logs  # noqa: PLC0415 - these take long to import
    from nsm.chains.tools.session import session  # noqa: PLC0415
    from nsm.view.sources import ManagerSource  # noqa: PLC0415

    logs.set_up("operate", "ERROR")
    _be_the_operator(url)
    async with session() as pool, ManagerSource.connect(url, pool, timeout=timeout) as source:
        yield source


def _be_the_operator(url: str) -> None:
    """Use the identity of a local mesh's operator for a manager in its folder, unless the environment names another."""
    path = url.removeprefix("unix://")
    workload_api = f"{os.path.dirname(path)}/id/operator"
    if _SOCKET not in os.environ and path.startswith("/") and os.path.exists(workload_api):
        os.environ[_SOCKET] = f"unix://{workload_api}"
