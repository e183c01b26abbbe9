"""The server side of `control`: the supervisor executes the commands of its mesh."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from nsm.chains.core import MeshError

from .model import Topology
from .processes import Tell
from .rundir import MeshCommandError
from .supervisor import Supervisor
from .topology import TopologyError, parse

_FAULTS = (MeshError, MeshCommandError, TopologyError, OSError, TimeoutError, ValueError, KeyError)
_LONGEST_LINE = 16 << 20
"""The longest request, in bytes: ``up`` contains the whole topology."""


class Commands:
    """Executes requests on `supervisor`, and reports."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def give(self, request: dict[str, Any], tell: Tell) -> None:
        """Respond through `tell`: once, except for ``up``, which reports every event. Raises errors in `_FAULTS`."""
        supervisor, command = self._supervisor, request["command"]
        if command == "status":
            tell(await supervisor.status())
        elif command == "components":
            tell({"components": supervisor.components()})
        elif command == "place":
            tell(supervisor.place_of(request["workload"]))
        elif command == "attach":
            tell(await supervisor.attach(request["name"], request["node"], request["kept"]))
        elif command == "detach":
            await supervisor.detach(request["name"])
            tell({"detached": request["name"]})
        elif command == "stop":
            await supervisor.stop(request["component"])
            tell({"stopped": request["component"]})
        elif command == "kill":
            number, namespaces = signal.Signals(request["signal"]), request.get("namespaces", False)
            tell({"ended": await supervisor.kill(request["component"], number, namespaces=namespaces)})
        elif command == "start":
            await supervisor.start(request["components"])
            tell({"started": request["components"]})
        elif command in {"cut", "mend"}:
            tell({"links": supervisor.set_cut(*request["nodes"], cut=command == "cut")})
        elif command == "up":
            await self._up(request, tell)
        elif command == "down":
            supervisor.stopping.set()
            tell({"stopping": True})
        else:
            raise MeshCommandError(f"unknown command {command!r}")

    async def _up(self, request: dict[str, Any], tell: Tell) -> None:
        topology = None
        if "text" in request:
            topology = parse(request["text"], request["source"], folder=request["folder"])
        if await up_or_stopped(self._supervisor, topology, request["timeout"], tell):
            tell({"event": "up"})


async def up_or_stopped(supervisor: Supervisor, topology: Topology | None, timeout: float | None, tell: Tell) -> bool:
    """Bring the mesh up unless it is stopped meanwhile; returns whether it is up. `tell` receives every event."""
    supervisor.listeners.append(tell)
    starting = asyncio.ensure_future(supervisor.up(topology, timeout))
    stopping = asyncio.ensure_future(supervisor.stopping.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        supervisor.listeners.remove(tell)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return False
    except (MeshError, MeshCommandError, OSError) as error:
        tell({"event": "failed", "reason": str(error)})
        return False
    return True


async def serve_control(path: str, commands: Commands) -> asyncio.AbstractServer:
    """Serve the commands of the mesh; if a command disconnects while it waits, its work is cancelled."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError, ValueError):
            if line := await reader.readline():
                await _until_left(reader, _answer(commands, line, writer))

    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(handle, path, limit=_LONGEST_LINE)
    finally:
        os.umask(before)


async def _answer(commands: Commands, line: bytes, writer: asyncio.StreamWriter) -> None:
    def tell(reply: Mapping[str, Any]) -> None:
        writer.write(json.dumps(dict(reply), default=str).encode() + b"\n")

    try:
        await commands.give(json.loads(line), tell)
    except _FAULTS as error:
        tell({"error": str(error) or type(error).__name__})
    await writer.drain()


async def _until_left(reader: asyncio.StreamReader, work: Any) -> None:
    """Run `work` until it is done, or until the caller disconnects."""
    working, left = asyncio.ensure_future(work), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({working, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, left):
            task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
