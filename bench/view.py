"""A view of ten thousand wires in fifty nodes: its memory, and how soon it shows that one of them is down.

    python -m bench.view

The managers and the registry are a stand-in, one process; the view is a real one, `nsm view`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from bench.joined import started
from bench.start import resident_mib
from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorScopeSelector,
    PathSegment,
    State,
)
from nsm.apis.connection import (
    Path as ConnectionPath,
)
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import memory_registry
from nsm.chains.core import ENDPOINTS, SERVICES, Peer, RegistryCall
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Health, Pool, RemoteRegistry, serve
from nsm.chains.transport.rpc import monitor
from nsm.view.client import ViewClient
from nsm.view.model import Change, Wire, WireState

WIRES, NODES, SERVICES_COUNT = 10_000, 50, 100
LAGS = 50
"""How many wires go down, one after the other."""
_PART, _PATIENCE = 200, 300.0


def measure() -> list[tuple[str, list[float], str]]:
    """MiB of the view with all wires; ms from the end of a wire to the change in the stream; s of a snapshot."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsm-bench-")))
        entries = ",".join(f"socket:{folder}/{name}-id=spiffe://bench.mesh/{name}" for name in ("forwarder", "view"))
        started(stack, ["identity"], {"NSM_ENTRIES": entries, "NSM_TRUST_DOMAIN": "bench.mesh"})
        fifo = folder / "commands"
        os.mkfifo(fifo)
        own = {
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{folder}/forwarder-id",
            "FOLDER": str(folder),
            "PYTHONPATH": os.getcwd(),
        }
        started(stack, [], own, program=[sys.executable, "-m", "bench.view", "managers"])
        view = started(
            stack,
            ["view"],
            {
                "SPIFFE_ENDPOINT_SOCKET": f"unix://{folder}/view-id",
                "NSM_REGISTRY_URL": f"unix://{folder}/registry.sock",
                "NSM_LISTEN_ON": f"unix://{folder}/view.sock",
            },
        )
        whole, lags, snapshot = asyncio.run(_read(f"unix://{folder}/view.sock", fifo))
        assert whole == WIRES, whole
        memory = resident_mib(view.pid)
    return [("view_10k_mib", [memory], "MiB"), ("view_lag_ms", lags, "ms"), ("view_10k_snapshot_s", snapshot, "s")]


async def _read(url: str, fifo: Path) -> tuple[int, list[float], list[float]]:
    """How many wires the view has in the end, the lags, and the times of snapshots."""
    async with ViewClient.connect(url, timeout=_PATIENCE) as view, asyncio.timeout(_PATIENCE):
        while sum(each.wires for each in await view.nodes()) < WIRES:  # noqa: ASYNC110 - another process fills it
            await asyncio.sleep(0.2)
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            snapshot = await view.snapshot()
            taken.append(time.perf_counter() - began)
        lags: list[float] = []
        changes = view.changes(snapshot.position)
        with fifo.open("w", buffering=1) as commands:
            for number in range(0, WIRES, WIRES // LAGS):
                commands.write(f"{number}\n")
                wire = await _down(changes, f"client-{number}")
                lags.append((time.monotonic() - float(wire.labels["at"])) * 1000)
        return len(snapshot.wires), lags, taken


async def _down(changes: AsyncIterator[Change], wire_id: str) -> Wire:
    """The wire, once the stream has it as down."""
    async for change in changes:
        if change.wire is not None and change.wire.id == wire_id and change.wire.state is WireState.DOWN:
            return change.wire
    raise AssertionError


class Manager:
    """One manager's monitor: the wires of its node's clients, and those of other nodes that end here."""

    def __init__(self, node: int) -> None:
        self._connections = {}
        for number in range(WIRES):
            if number % NODES == node:
                self._add(_wire(number, 1))
            elif (number + 1) % NODES == node:
                self._add(_wire(number, 3))
        self._news: asyncio.Queue[ConnectionEvent] = asyncio.Queue()

    def down(self, number: int) -> None:
        """Report a wire as down, with the time when that was."""
        changed = codec.clone(self._connections[f"nsmgr-{number % NODES}-{number}"])
        changed.state, changed.labels["at"] = State.DOWN, str(time.monotonic())
        self._news.put_nowait(ConnectionEvent(type=ConnectionEventType.UPDATE, connections={changed.id: changed}))

    async def monitor_others(
        self, selector: MonitorScopeSelector, peer: Peer | None, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """All connections in parts, then changes."""
        del selector, peer, in_parts
        known = [*self._connections.items()]
        for start in range(0, len(known), _PART):
            yield ConnectionEvent(connections=dict(known[start : start + _PART]))
        yield ConnectionEvent()
        while True:
            yield await self._news.get()

    monitor = monitor_attempts = monitor_others

    def _add(self, connection: Connection) -> None:
        self._connections[connection.id] = connection


def _wire(number: int, index: int) -> Connection:
    """A wire to the next node, as the manager at that index of its path has it."""
    near, far = number % NODES, (number + 1) % NODES
    expires = Timestamp.from_seconds(time.time() + 600)
    names = [f"client-{number}", f"nsmgr-{near}", f"forwarder-{near}", f"nsmgr-{far}", f"forwarder-{far}"]
    names.append(f"endpoint-{number % SERVICES_COUNT}")
    segments = [
        PathSegment(name=name, id=f"{name}-{number}" if place else name, expires=expires)
        for place, name in enumerate(names)
    ]
    segments[2].metrics = {"server_interface": f"KERNEL/nsm-{number}", "client_interface": "WIREGUARD/unknown"}
    segments[4].metrics = {"server_interface": "WIREGUARD/unknown", "client_interface": f"KERNEL/web-{number}"}
    address = f"10.{number >> 8 & 255}.{number & 255}"
    local = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})
    return Connection(
        id=segments[index].id,
        network_service=f"service-{number % SERVICES_COUNT}",
        network_service_endpoint_name=names[-1],
        mechanism=local if index == 1 else Mechanism(cls="REMOTE", type="WIREGUARD"),
        context=ConnectionContext(
            ip_context=IpContext(
                src_ip_addrs=[f"{address}.1/32"],
                dst_ip_addrs=[f"{address}.0/32"],
                src_routes=[Route(prefix=f"{address}.0/32")],
            ),
            mtu=1420,
        ),
        labels={"nodeName": f"node-{near}", "app": f"app-{number % 7}"},
        path=ConnectionPath(index=index, path_segments=segments),
        payload="IP",
    )


async def _stand_in(environment: Mapping[str, str]) -> None:
    """Serve all managers and the registry; a number on standard input ends that wire."""
    folder = environment["FOLDER"]
    async with AsyncExitStack() as stack:
        source = identity_from(environment["SPIFFE_ENDPOINT_SOCKET"], token_lifetime=600)
        identity = await stack.enter_async_context(source)
        registry = memory_registry(identity)
        methods = {**registry.methods(), **Health().methods()}
        (at,) = await stack.enter_async_context(
            serve([f"unix://{folder}/registry.sock"], methods, identity, name="registry", takes_descriptors=False)
        )
        managers = []
        pool = await stack.enter_async_context(Pool(identity))
        for node in range(NODES):
            managers.append(manager := Manager(node))
            own = {**monitor(manager), **Health().methods()}
            url = f"unix://{folder}/nsmgr-{node}.sock"
            await stack.enter_async_context(serve([url], own, identity, name=f"nsmgr-{node}", takes_descriptors=False))
            await _register(pool, at, f"forwarder-{node}", "forwarder", node, url)
        for number in range(SERVICES_COUNT):
            service = NetworkService(name=f"service-{number}")
            await RemoteRegistry(SERVICES, pool).register(RegistryCall(service, target=at))
            url = f"unix://{folder}/nsmgr-{number % NODES}.sock"
            await _register(pool, at, f"endpoint-{number}", f"service-{number}", number % NODES, url)
        print(json.dumps({"event": "ready"}), file=sys.stderr, flush=True)
        await _obey(Path(folder, "commands"), managers)


async def _register(pool: Pool, registry: str, name: str, service: str, node: int, url: str) -> None:
    labels = {service: NetworkServiceLabels(labels={"nodeName": f"node-{node}"})}
    record = NetworkServiceEndpoint(name=name, network_service_names=[service], network_service_labels=labels, url=url)
    await RemoteRegistry(ENDPOINTS, pool).register(RegistryCall(record, target=registry))


async def _obey(commands: Path, managers: list[Manager]) -> None:
    reader = asyncio.StreamReader()
    pipe = await asyncio.to_thread(commands.open, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    while line := await reader.readline():
        managers[int(line) % NODES].down(int(line))
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    if sys.argv[1:] == ["managers"]:
        asyncio.run(_stand_in(os.environ))
    else:
        for name, values, unit in measure():
            print(f"{name:<24}{sorted(values)[len(values) // 2]:>10.2f} {unit}  worst {max(values):.2f}")
