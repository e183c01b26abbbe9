"""The process that owns a running mesh: its namespaces, its components, its logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from nsm.apis import jsonform
from nsm.apis.connection import Connection, MonitorScopeSelector, State
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.core import MeshError
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Pool, RemoteMonitor

from . import namespaces
from .rundir import RunDir
from .topology import ClientSpec, EndpointSpec, Topology
from .zygote import Start, Zygote

TRUST_DOMAIN = "local.mesh"
STOP_TIMEOUT = 10.0
_REGISTRY_PORT, _MANAGER_PORT = 5002, 5001

Tell = Callable[[Mapping[str, Any]], None]
"""Hears what happens, as it happens: objects with `event` and its values."""


@dataclass
class _Component:
    """One component: what it runs, where, and how it is."""

    name: str
    command: str
    network: int
    environment: dict[str, str]
    is_workload: bool = False
    pid: int = 0
    mounts: int = -1
    """A descriptor of its mount namespace, once it is ready: a workload can be entered although its client ended."""
    status: int | None = None
    began: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last: str = ""
    """The last line that it logged as a warning or an error."""


class Supervisor:
    """Builds a mesh, keeps it, and takes it down again without leaving anything."""

    def __init__(self, run: RunDir, topology: Topology, zygote: Zygote, tell: Tell, *, trace_to: str = "") -> None:
        self._run, self._topology, self._zygote, self._tell = run, topology, zygote, tell
        self._trace_to = trace_to
        self._components: dict[str, _Component] = {}
        self._networks: dict[str, int] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    async def up(self) -> None:
        """Start everything; returns when every client has its wires. Raises `MeshError` if a component ends."""
        asyncio.get_running_loop().add_reader(self._zygote.fileno(), self._note_ended)
        self._make_networks()
        self._plan()
        await self._start_all(["identity"])
        node = self._topology.nodes[0].name
        await self._start_all([f"registry-{node}", f"nsmgr-{node}"])
        await self._start_all([f"forwarder-{node}", *(endpoint.name for endpoint in self._topology.endpoints)])
        await self._start_all([client.name for client in self._topology.clients])

    async def down(self) -> None:
        """Stop everything, clients first so that they close their wires."""
        for group in self._stop_order():
            await asyncio.gather(*(self.stop(component.name) for component in group))
        asyncio.get_running_loop().remove_reader(self._zygote.fileno())
        if self._readers:
            await asyncio.wait(self._readers, timeout=1)
        for network in self._networks.values():
            os.close(network)
        self._networks.clear()

    async def stop(self, name: str) -> None:
        """Stop one component: asked first, killed if it does not listen."""
        component = self._components[name]
        if not component.pid or component.ended.is_set():
            return
        os.kill(component.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await component.ended.wait()
        except TimeoutError:
            self._tell({"event": "killed", "component": name})
            os.kill(component.pid, signal.SIGKILL)
            await component.ended.wait()

    async def wires(self) -> list[dict[str, Any]]:
        """The wires of all clients, as their managers know them."""
        found = []
        workload_api = f"unix://{self._run.identity_of('status')}"
        async with identity_from(workload_api, token_lifetime=600) as identity, Pool(identity) as pool:
            for node in self._topology.nodes:
                found += await _wires_of(pool, f"unix://{self._run.socket_of(f'nsmgr-{node.name}')}")
        return found

    def status(self) -> list[dict[str, Any]]:
        """The components: name, command, pid, and whether they run."""
        return [
            {
                "name": c.name,
                "command": c.command,
                "pid": c.pid,
                "state": _state(c),
                "last_warning": c.last,
            }
            for c in self._components.values()
        ]

    def place_of(self, name: str) -> dict[str, Any]:
        """How to enter a workload: descriptors of this process, by kind of namespace. Raises `MeshError`."""
        component = self._components.get(name)
        if component is None or not component.is_workload:
            known = ", ".join(c.name for c in self._components.values() if c.is_workload)
            raise MeshError(f"there is no workload {name!r}; there are {known}")
        return {"supervisor": os.getpid(), "network": component.network, "mounts": component.mounts}

    def _make_networks(self) -> None:
        topology = self._topology
        names = [each.name for group in (topology.nodes, topology.endpoints, topology.clients) for each in group]
        for name in names:
            self._networks[name] = namespaces.new_network()

    def _plan(self) -> None:
        """Every component with its environment."""
        node = self._topology.nodes[0].name
        network, run = self._networks[node], self._run
        manager = f"unix://{run.socket_of(f'nsmgr-{node}')}"
        self._add("identity", "identity", network, {"NSM_TRUST_DOMAIN": TRUST_DOMAIN})
        registry = f"tcp://127.0.0.1:{_REGISTRY_PORT}"
        self._add(f"registry-{node}", "registry", network, {"NSM_LISTEN_ON": registry})
        listen_on = f"{manager},tcp://127.0.0.1:{_MANAGER_PORT}"
        self._add(f"nsmgr-{node}", "nsmgr", network, {"NSM_LISTEN_ON": listen_on, "NSM_REGISTRY_URL": registry})
        own = f"unix://{run.socket_of(f'forwarder-{node}')}"
        environment = {"NSM_CONNECT_TO": manager, "NSM_LISTEN_ON": own}
        self._add(f"forwarder-{node}", "forwarder-kernel", network, environment)
        for endpoint in self._topology.endpoints:
            environment = {"NSM_CONNECT_TO": manager, **_endpoint_environment(endpoint)}
            self._add(endpoint.name, "nse", self._networks[endpoint.name], environment, is_workload=True)
        for client in self._topology.clients:
            environment = {"NSM_CONNECT_TO": manager, **_client_environment(client)}
            self._add(client.name, "nsc", self._networks[client.name], environment, is_workload=True)
        self._components["identity"].environment["NSM_ENTRIES"] = self._entries()

    def _add(
        self, name: str, command: str, network: int, environment: dict[str, str], *, is_workload: bool = False
    ) -> None:
        node = self._topology.nodes[0].name
        common = {
            "PATH": os.environ.get("PATH", ""),
            "NSM_NAME": name,
            "NODE_NAME": node,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self._run.identity_of(name)}",
            "NSM_LOG_LEVEL": os.environ.get("NSM_LOG_LEVEL", "INFO"),
        }
        if self._trace_to:
            common["OTEL_EXPORTER_OTLP_ENDPOINT"] = self._trace_to
        self._components[name] = _Component(name, command, network, {**common, **environment}, is_workload)

    def _entries(self) -> str:
        names = [name for name in self._components if name != "identity"] + ["status"]
        return ",".join(f"socket:{self._run.identity_of(name)}=spiffe://{TRUST_DOMAIN}/{name}" for name in names)

    async def _start_all(self, names: list[str]) -> None:
        for name in names:
            self._start(self._components[name])
        await asyncio.gather(*(self._until_ready(self._components[name]) for name in names))

    def _start(self, component: _Component) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        resolv_conf = self._own_resolv_conf(component) if component.is_workload else ""
        component.began = time.perf_counter()
        what = Start(component.command, component.environment, resolv_conf)
        component.pid = self._zygote.start(what, component.network, write)
        os.close(write)
        task = asyncio.get_running_loop().create_task(self._read(component, read), name=f"output of {component.name}")
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    def _own_resolv_conf(self, component: _Component) -> str:
        path = self._run.path / f"{component.name}.resolv.conf"
        if not os.path.exists("/etc/resolv.conf"):
            return ""
        path.touch()
        return str(path)

    async def _until_ready(self, component: _Component) -> None:
        ready, ended = asyncio.ensure_future(component.ready.wait()), asyncio.ensure_future(component.ended.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if not component.ready.is_set():
            raise MeshError(f"{component.name} ended before it was ready: {component.last or 'see its log'}")
        component.mounts = os.open(f"/proc/{component.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        seconds = time.perf_counter() - component.began
        self._tell({"event": "started", "component": component.name, "ms": round(seconds * 1000)})

    async def _read(self, component: _Component, descriptor: int) -> None:
        """Copy a component's output to its log, and hear what it says."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        try:
            with open(self._run.log_of(component.name), "ab", buffering=0) as log:  # noqa: ASYNC230 - a local file
                while line := await reader.readline():
                    log.write(line)
                    self._hear(component, line)
        finally:
            transport.close()

    def _hear(self, component: _Component, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            component.last = line.decode(errors="replace").strip()
            return
        if said.get("event") == "ready":
            component.ready.set()
        if said.get("level") in {"warning", "error"}:
            component.last = f"{said['event']}: {said.get('error') or said.get('reason') or ''}".rstrip(": ")
        if said.get("event") in {"wire up", "wire made", "no wire yet"}:
            self._tell({**said, "component": component.name})

    def _note_ended(self) -> None:
        by_pid = {component.pid: component for component in self._components.values()}
        for pid, status in self._zygote.take_ended():
            component = by_pid[pid]
            component.status = os.waitstatus_to_exitcode(status)
            component.ended.set()
            if not self.stopping.is_set() and component.status != 0:
                event = {"event": "ended", "component": component.name, "status": component.status}
                self._tell({**event, "reason": component.last})

    def _stop_order(self) -> list[list[_Component]]:
        order = ["nsc", "nse", "forwarder-kernel", "nsmgr", "registry", "identity"]
        return [[c for c in self._components.values() if c.command == command] for command in order]


def _state(component: _Component) -> str:
    if component.ended.is_set():
        return f"ended with {component.status}"
    return "ready" if component.ready.is_set() else "starting"


def _endpoint_environment(endpoint: EndpointSpec) -> dict[str, str]:
    return {
        "NSM_SERVICE_NAMES": ",".join(endpoint.services),
        "NSM_PAYLOAD": endpoint.payload,
        "NSM_CIDR_PREFIX": ",".join(endpoint.prefixes),
        "NSM_LABELS": _labels(endpoint.labels),
    }


def _client_environment(client: ClientSpec) -> dict[str, str]:
    return {"NSM_NETWORK_SERVICES": ",".join(client.wires), "NSM_LABELS": _labels(client.labels)}


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}:{value}" for key, value in labels.items())


async def _wires_of(pool: Pool, manager: str) -> list[dict[str, Any]]:
    """The connections that begin at clients of one manager."""
    async with asyncio.timeout(5):
        events = RemoteMonitor(pool, manager).monitor(MonitorScopeSelector())
        async with aclosing(cast(Any, events)) as stream:
            async for event in stream:
                return [_wire(c) for c in event.connections.values() if c.path is not None and c.path.index == 1]
    return []


def _wire(connection: Connection) -> dict[str, Any]:
    plain = jsonform.to_json(connection)
    ip = plain.get("context", {}).get("ip_context", {})
    segments = plain["path"]["path_segments"]
    mechanism = plain.get("mechanism", {})
    return {
        "client": segments[0]["name"],
        "service": connection.network_service,
        "interface": mechanism.get("parameters", {}).get(INTERFACE_NAME, ""),
        "mechanism": mechanism.get("type", ""),
        "endpoint": connection.network_service_endpoint_name,
        "src_ips": ip.get("src_ip_addrs", []),
        "dst_ips": ip.get("dst_ip_addrs", []),
        "path": [segment["name"] for segment in segments],
        "state": State(connection.state).name,
    }


async def serve_control(
    path: str, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
) -> asyncio.AbstractServer:
    """Answer the commands of the mesh: a JSON object a line each way."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    reply = await answer(json.loads(line))
                except (MeshError, OSError, TimeoutError, ValueError, KeyError) as error:
                    reply = {"error": str(error) or type(error).__name__}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(handle, path)
    finally:
        os.umask(before)


def ask(path: str, request: dict[str, Any], *, timeout: float = 60.0) -> dict[str, Any]:
    """Ask the supervisor at `path`. Raises OSError if nobody answers, `MeshError` with what it says is wrong."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise MeshError("the mesh went away")
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise MeshError(reply["error"])
    return reply
