"""The process that owns a running mesh: its namespaces, its components, its logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from nsm.chains.core import MeshError
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Pool

from . import namespaces
from .collector import Collector
from .logfile import LogFile, component_level, parsed
from .plan import OPERATOR, START_ORDER, STOP_ORDER, Component, manager_of, plan
from .rundir import MeshCommandError, RunDir
from .topology import Topology
from .wires import wires_of
from .zygote import Start, Zygote

STOP_TIMEOUT = 10.0
_LAST_WORDS = 1.0
"""Seconds to wait for the rest of the output of a component that has ended: a child of it may hold the pipe."""
_TOLD = {"wire up", "wire made", "no wire yet"}

Tell = Callable[[Mapping[str, Any]], None]
"""Hears what happens, as it happens: objects with `event` and its values."""


@dataclass
class _Process:
    """A component, and how it is."""

    what: Component
    pid: int = 0
    status: int | None = None
    began: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    output: asyncio.Task[None] | None = None
    """Reads what it says; done when it has said all."""
    last: str = ""
    """The last line that it logged as a warning or an error, or that was no event at all."""

    @property
    def name(self) -> str:
        return self.what.name

    @property
    def state(self) -> str:
        if self.ended.is_set():
            return f"ended with {self.status}"
        if not self.pid:
            return "not started"
        return "ready" if self.ready.is_set() else "starting"


class Supervisor:
    """Builds a mesh, keeps it, and takes it down again without leaving anything.

    `environment` is that of the one who asked for the mesh: its log level and its settings of tracing are passed on.
    `stopping` is set by whoever wants the mesh to end, and by the supervisor itself if it cannot go on.
    """

    def __init__(
        self, run: RunDir, topology: Topology, zygote: Zygote, tell: Tell, environment: Mapping[str, str]
    ) -> None:
        self._run, self._topology, self._zygote, self._tell = run, topology, zygote, tell
        self._log_level = environment.get("NSM_LOG_LEVEL", "INFO")
        self._collector = Collector(environment)
        common = {**_common(environment, self._log_level), **self._collector.variables}
        parts = plan(run, topology, common)
        self._processes = {part.name: _Process(part) for part in parts}
        self._networks: dict[str, int] = {}
        self._mounts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._operator = AsyncExitStack()
        self._pool: Pool | None = None
        self.stopping = asyncio.Event()

    @property
    def networks(self) -> set[int]:
        """The numbers of the network namespaces."""
        return {namespaces.number_of(network) for network in self._networks.values()}

    async def up(self, timeout: float | None) -> None:
        """Start everything; returns when every client has its wires.

        Raises `MeshError` or `MeshCommandError` if a component ends, or wires are missing after `timeout` seconds.
        """
        asyncio.get_running_loop().add_reader(self._zygote.fileno(), self._note_ended)
        self._make_namespaces()
        await self._collector.listen_in(self._networks.values())
        try:
            async with asyncio.timeout(timeout):
                for commands in START_ORDER:
                    await self._start_all([p for p in self._processes.values() if p.what.command in commands])
                    if "identity" in commands:
                        await self._become_operator()
        except TimeoutError:
            raise MeshCommandError(f"not up after {timeout:g} s: {'; '.join(self._missing())}") from None

    async def down(self) -> None:
        """Stop everything, clients first so that they close their wires."""
        await self._operator.aclose()
        for command in STOP_ORDER:
            await asyncio.gather(*(self.stop(p.name) for p in self._processes.values() if p.what.command == command))
        asyncio.get_running_loop().remove_reader(self._zygote.fileno())
        await self._collector.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    async def stop(self, name: str) -> None:
        """Stop one component: asked first, killed if it does not listen. Raises `MeshCommandError` if there is none."""
        process = self._process(name)
        if not process.pid or process.ended.is_set():
            return
        try:
            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.ended.wait()
        except ProcessLookupError:
            await process.ended.wait()
        except TimeoutError:
            self._tell({"event": "killed", "component": name})
            os.kill(process.pid, signal.SIGKILL)
            await process.ended.wait()

    async def wires(self) -> list[dict[str, Any]]:
        """The wires of all clients, as their managers know them, and those that are missing."""
        if self._pool is None:
            return []
        found: list[dict[str, Any]] = []
        for node in self._topology.nodes:
            clients = [client for client in self._topology.clients if client.node == node.name]
            found += await wires_of(self._pool, manager_of(self._run, node), clients)
        return [self._with_reason(wire) for wire in found]

    def status(self) -> list[dict[str, Any]]:
        """The components: name, command, pid, and whether they run."""
        return [
            {
                "name": process.name,
                "command": process.what.command,
                "node": process.what.environment["NODE_NAME"],
                "pid": process.pid,
                "state": process.state,
                "last_warning": process.last,
            }
            for process in self._processes.values()
        ]

    def place_of(self, name: str) -> dict[str, Any]:
        """How to enter a workload: descriptors of this process, and variables. Raises `MeshCommandError`."""
        process = self._processes.get(name)
        if process is None or not process.what.is_workload or name not in self._mounts:
            known = ", ".join(p.name for p in self._processes.values() if p.what.is_workload)
            raise MeshCommandError(f"there is no workload {name!r}; there are {known}")
        wanted = ("SPIFFE_ENDPOINT_SOCKET", "NSM_CONNECT_TO")
        return {
            "supervisor": os.getpid(),
            "network": self._networks[name],
            "mounts": self._mounts[name],
            "environment": {key: process.what.environment[key] for key in wanted},
        }

    def _process(self, name: str) -> _Process:
        if name not in self._processes:
            raise MeshCommandError(f"there is no component {name!r}; there are {', '.join(self._processes)}")
        return self._processes[name]

    def _make_namespaces(self) -> None:
        for node in self._topology.nodes:
            self._networks[node.name] = namespaces.new_network()
        for workload in self._topology.workloads:
            path = self._run.resolv_conf_of(workload.name)
            path.touch()
            self._networks[workload.name] = namespaces.new_network()
            self._mounts[workload.name] = namespaces.new_mounts(str(path))

    async def _become_operator(self) -> None:
        workload_api = f"unix://{self._run.identity_of(OPERATOR)}"
        identity = await self._operator.enter_async_context(identity_from(workload_api, token_lifetime=600))
        self._pool = await self._operator.enter_async_context(Pool(identity))

    async def _start_all(self, processes: Iterable[_Process]) -> None:
        processes = list(processes)
        for process in processes:
            self._start(process)
        await asyncio.gather(*(self._until_ready(process) for process in processes))

    def _start(self, process: _Process) -> None:
        what = process.what
        read, write = os.pipe2(os.O_CLOEXEC)
        process.output = self._spawn(self._read(process, read), f"output of {what.name}")
        process.began = time.perf_counter()
        try:
            start = Start(what.name, what.command, what.environment)
            process.pid = self._zygote.start(start, write, self._networks[what.place], self._mounts.get(what.place))
        finally:
            os.close(write)

    async def _until_ready(self, process: _Process) -> None:
        ready, ended = asyncio.ensure_future(process.ready.wait()), asyncio.ensure_future(process.ended.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if not process.ready.is_set():
            how = f"ended with {process.status} before it was ready"
            raise MeshCommandError(f"{process.name} {how}: {process.last or 'it said nothing'}")
        seconds = time.perf_counter() - process.began
        self._tell({"event": "started", "component": process.name, "ms": round(seconds * 1000)})

    async def _read(self, process: _Process, descriptor: int) -> None:
        """Copy a component's output to its log, and hear what it says."""
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        log = LogFile(self._run.log_of(process.name), self._log_level)
        with contextlib.closing(transport), contextlib.closing(log):
            while True:
                try:
                    line = await reader.readline()
                except ValueError:  # longer than any line should be: what was read of it is gone
                    continue
                if not line:
                    return
                said = parsed(line)
                log.append(line, said)
                self._hear(process, line, said)

    def _hear(self, process: _Process, line: bytes, said: dict[str, Any] | None) -> None:
        if said is None:
            process.last = line.decode(errors="replace").strip() or process.last
            return
        if said["event"] == "ready":
            process.ready.set()
        if said.get("level") in {"warning", "error"}:
            process.last = f"{said['event']}: {said.get('error') or said.get('reason') or ''}".rstrip(": ")
        if said["event"] in _TOLD:
            self._tell({**said, "component": process.name})

    def _note_ended(self) -> None:
        ended = dict(self._zygote.take_ended())
        if not self._zygote.is_alive:
            ended = {p.pid: ended.get(p.pid, signal.SIGKILL) for p in self._processes.values() if p.pid}
            asyncio.get_running_loop().remove_reader(self._zygote.fileno())
            self._tell({"event": "failed", "reason": "the process that starts components was killed"})
            self.stopping.set()
        for process in self._processes.values():
            if process.pid in ended and process.status is None:
                process.status = os.waitstatus_to_exitcode(ended[process.pid])
                self._spawn(self._mark_ended(process), f"end of {process.name}")

    async def _mark_ended(self, process: _Process) -> None:
        """Say that a component has ended, once its last words have been read: they tell why."""
        if process.output is not None:
            await asyncio.wait({process.output}, timeout=_LAST_WORDS)
        process.ended.set()
        if not self.stopping.is_set() and process.status != 0:
            told = {"event": "ended", "component": process.name, "status": process.status}
            self._tell({**told, "reason": process.last})

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _missing(self) -> list[str]:
        late = [p for p in self._processes.values() if p.pid and not p.ready.is_set()]
        return [f"{process.name}: {process.last or 'it is not ready'}" for process in late]

    def _with_reason(self, wire: dict[str, Any]) -> dict[str, Any]:
        client = self._processes.get(wire["client"])
        if client is None:
            return wire
        if client.ended.is_set():
            return {**wire, "reason": f"the client {client.state}"}
        if wire["state"] == "DOWN" and client.last:
            return {**wire, "reason": client.last}
        return wire


def _common(environment: Mapping[str, str], log_level: str) -> dict[str, str]:
    """What components get of the environment of whoever started the mesh."""
    traces = {key: value for key, value in environment.items() if key.startswith("OTEL_") or key == "TELEMETRY"}
    return {"PATH": environment.get("PATH", os.defpath), "NSM_LOG_LEVEL": component_level(log_level), **traces}


async def serve_control(
    path: str, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
) -> asyncio.AbstractServer:
    """Answer the commands of the mesh: a JSON object a line each way."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.CancelledError, ValueError):
            while line := await reader.readline():
                try:
                    reply = await answer(json.loads(line))
                except (MeshError, MeshCommandError, OSError, TimeoutError, ValueError, KeyError) as error:
                    reply = {"error": str(error) or type(error).__name__}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()

    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(handle, path)
    finally:
        os.umask(before)
