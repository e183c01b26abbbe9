"""The process that owns a running mesh: its namespaces, its links, its components."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from nsm.chains.identity.source import identity_from
from nsm.chains.model.domains import split
from nsm.chains.transport import Pool

from .collector import Collector
from .logfile import component_level
from .model import Topology
from .places import Places
from .plan import (
    AGENT,
    PROGRAM,
    REGISTERED,
    START_ORDER,
    STOP_ORDER,
    VIEW,
    Component,
    agent,
    attached_entries,
    entries,
    forwarders_of,
    issuer_of,
    manager_of,
    operator_of,
    plan,
    role_of,
    supplied_by,
)
from .process import Process
from .processes import Processes, Tell
from .registrations import Registrations, services_of, unregister_endpoint, until_registered
from .rundir import MeshCommandError, RunDir
from .status import View, describe
from .view import WITHOUT_VIEW, MeshView
from .wires import Known, known_to, together
from .zygote import Zygote

_ENDING = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_BEGINS = "the components are not started yet"
_LOOK_AGAIN = 0.1
_A_MOMENT = 0.01
"""Seconds after which the view is started: whoever waits for the mesh is told first."""
_END_TIMEOUT = 25.0
"""Seconds to wait for a component to stop; it limits itself to 20."""


class Supervisor:
    """Creates a mesh from a topology, maintains it, and removes it completely.

    `environment` is that of the command that started the mesh: its log level and tracing settings are passed on.
    `stopping` is set to stop the mesh, also by the supervisor itself if it cannot continue. `listeners` are called with
    each event.
    """

    def __init__(self, run: RunDir, zygote: Zygote, environment: Mapping[str, str]) -> None:
        self._run = run
        log_level = environment.get("NSM_LOG_LEVEL", "INFO")
        self._collector = Collector(environment)
        self._common = {**_common(environment, log_level), **self._collector.variables}
        self.stopping = asyncio.Event()
        self.listeners: list[Tell] = []
        self._places = Places(run, zygote)
        self._processes = Processes(run, zygote, self._tell, self.stopping, log_level)
        self._processes.on_wanted = self._start_on_demand
        self._view = MeshView(run) if environment.get(WITHOUT_VIEW, "") != "true" else None
        self._starting: set[asyncio.Task[None]] = set()
        self._topology = Topology(())
        self._wanted: dict[str, Component] = {}
        self._attached: dict[str, str] = {}
        """The nodes of what is attached, by its names."""
        self._links: Any = None
        self._registrations: dict[str, Registrations] = {}
        self._operator = AsyncExitStack()
        self._pools: dict[str, Pool] = {}
        """The channels with which the supervisor calls components, as the operator of their domain."""
        self._changing = asyncio.Lock()
        self._waits_for: set[str] = set()

    @property
    def networks(self) -> set[int]:
        """The numbers of the network namespaces."""
        return self._places.numbers

    async def up(self, topology: Topology | None, timeout: float | None) -> None:
        """Change the mesh to `topology`, or to the last one: start missing components, remove those not listed.

        Returns when every client has its wires. Raises `MeshError`, `MeshCommandError` or OSError if a component ends,
        or something is missing after `timeout` seconds; what is running then stays.
        """
        async with self._changing:
            self._waits_for.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._change(topology or self._topology)
            except TimeoutError:
                raise MeshCommandError(f"not up after {timeout:g} s: {'; '.join(self._missing())}") from None
            finally:  # a mesh that lacks something needs its view most
                asyncio.get_running_loop().call_later(_A_MOMENT, self._start_view)

    async def down(self) -> None:
        """Stop everything, clients first so that they close their wires."""
        for starting in self._starting:
            starting.cancel()
        for registrations in self._registrations.values():
            await registrations.aclose()
        await self._operator.aclose()
        for command in STOP_ORDER:
            await self._stop_all(process for process in self._processes if process.what.command == command)
        await self._processes.aclose()
        await self._collector.aclose()

    async def stop(self, name: str) -> None:
        """Stop a component: terminated first, then killed. Raises `MeshCommandError` if it does not exist."""
        await self._processes.stop(name)

    async def kill(self, name: str, number: signal.Signals, *, namespaces: bool = False) -> bool:
        """Send a signal to a component, and report whether it has ended.

        With `namespaces`, the network namespace of a workload goes with it and all that runs there, as a pod's does
        when it is deleted. Raises `MeshCommandError` if the component does not run, or has no namespace of its own.
        """
        process = self._processes.named(name)
        if namespaces and name not in self._places.mounts:
            raise MeshCommandError(f"{name} has no namespaces of its own: only endpoints and clients have")
        if not process.runs and not namespaces:
            raise MeshCommandError(f"{name} does not run: it {process.state}")
        self._processes.signal(process, number)
        has_ended = number in _ENDING and await self._processes.until_ended(process, _END_TIMEOUT)
        if namespaces and has_ended:
            await self._release([name])
        return has_ended

    async def start(self, names: Sequence[str]) -> None:
        """Start components that have ended, and touch nothing else; returns when they are ready.

        Raises `MeshCommandError` if there is no such component or one ends before it is ready.
        """
        async with self._changing:
            for name in names:
                self._processes.named(name)
            parts = [self._wanted[name] for name in names if name in self._wanted and not self._is_running(name)]
            self._places.make([], [part.name for part in parts if part.is_workload])
            await self._collector.listen_in(self._places.networks.values())
            await self._start_all(parts)

    def set_cut(self, one: str, other: str, *, cut: bool) -> list[str]:
        """Cut or restore the links between two nodes; returns their networks.

        Raises `MeshCommandError` if there is none.
        """
        known = [node.name for node in self._topology.nodes]
        for name in (one, other):
            if name not in known:
                raise MeshCommandError(f"there is no node {name!r}; there are {', '.join(known)}")
        networks: list[str] = self._links.set_cut(one, other, cut=cut) if self._links is not None else []
        if not networks or one == other:
            raise MeshCommandError(f"there is no link between {one!r} and {other!r}")
        return networks

    async def status(self) -> dict[str, Any]:
        """The whole mesh, for `nsm mesh status`."""
        cut, names = (
            (self._links.cut_ports(), self._links.interface_names()) if self._links is not None else (set(), {})
        )
        managers = await self._ask_all({node.name: [role_of("nsmgr", node.name)] for node in self._topology.managed}, 1)
        forwarders = await self._ask_all({node.name: forwarders_of(node) for node in self._topology.managed}, 2)
        process = self._processes.get(VIEW)
        own_view = self._view.described(process) if self._view is not None and process is not None else None
        view = View(self._run.name, self._topology, list(self._processes), managers, forwarders, cut, names, own_view)
        return describe(view)

    def components(self) -> list[dict[str, Any]]:
        """The processes of the mesh: name, process id, and how each has ended, if it has."""
        return [{"name": each.name, "pid": each.pid, "status": each.status} for each in self._processes]

    def place_of(self, name: str) -> dict[str, Any]:
        """The descriptors of this process and the variables for entering a workload. Raises `MeshCommandError`."""
        part = self._wanted.get(name)
        if part is None or name not in self._places.mounts:
            known = ", ".join(workload.name for workload in self._topology.workloads)
            raise MeshCommandError(f"there is no workload {name!r}; there are {known or 'none'}")
        wanted = ("SPIFFE_ENDPOINT_SOCKET", "NSM_CONNECT_TO")
        return {
            "supervisor": os.getpid(),
            "network": self._places.networks[name],
            "mounts": self._places.mounts[name],
            "environment": {key: part.environment[key] for key in wanted},
            "mark": self._run.mark_of(name),
        }

    async def attach(self, name: str, node: str, kept: Collection[str]) -> dict[str, Any]:
        """Give what is attached as `name` an identity at a node, the first one if none is named, and start the agent.

        `kept` are the names that the agent keeps: what has ended since loses its identity. Returns where the agent is,
        and what the client of the attachment needs. Raises `MeshCommandError`.
        """
        nodes = [each.name for each in self._topology.managed]
        node = node or self._attached.get(name) or nodes[0]
        if node not in nodes:
            raise MeshCommandError(f"there is no node {node!r}; there are {', '.join(nodes)}")
        async with self._changing:
            if name in self._wanted:
                raise MeshCommandError(f"there is a component {name!r} already; use another name: --as NAME")
            self._attached = {each: at for each, at in self._attached.items() if each in kept} | {name: node}
            await self._write_entries([*self._wanted.values()])
            self._wanted[AGENT] = agent(self._run, self._topology, self._common)
            await self._start_all([self._wanted[AGENT]])
        return {
            "agent": str(self._run.attachments),
            "node": node,
            "manager": manager_of(self._run, node),
            "workload_api": f"unix://{self._run.identity_of(name)}",
        }

    async def detach(self, name: str) -> None:
        """Issue no identity for `name` any more."""
        async with self._changing:
            if self._attached.pop(name, None) is not None:
                await self._write_entries([*self._wanted.values()])

    async def _change(self, topology: Topology) -> None:
        parts = plan(self._run, topology, self._common)
        if self._attached:
            parts.append(agent(self._run, topology, self._common))
        await self._take_out({part.name: part for part in parts}, topology)
        self._topology, self._wanted = topology, {part.name: part for part in parts}
        nodes = [node.name for node in topology.nodes]
        self._places.make(nodes, [workload.name for workload in topology.workloads])
        await self._collector.listen_in(self._places.networks.values())
        self._change_links(topology)
        await self._write_entries(parts)
        for commands in START_ORDER:
            await self._start_all([part for part in parts if part.command in commands and not part.is_waiting])
            if "identity" in commands:
                await self._become_operator()
            if "nsmgr" in commands:
                await self._register_services(topology)
            if "nse" in commands:
                await self._until_registered(parts)
        await self._until_wires_are_up()

    async def _take_out(self, wanted: Mapping[str, Component], topology: Topology) -> None:
        """Stop components that are no longer wanted, or have changed."""
        leaving = [process for process in self._processes if self._as_started(wanted.get(process.name)) != process.what]
        endpoints = {p.name for p in leaving if p.what.command in REGISTERED and p.what.is_workload}
        leaving += [client for client in await self._clients_of(endpoints) if client not in leaving]
        for command in STOP_ORDER:
            group = [process for process in leaving if process.what.command == command]
            await self._stop_all(group)
            if command in REGISTERED:
                await asyncio.gather(*(self._unregister(process.what) for process in group))
        for process in leaving:
            if process.name not in wanted:
                self._processes.forget(process.name)
                self._tell({"event": "taken out", "component": process.name})
        await self._leave_places(topology)

    async def _leave_places(self, topology: Topology) -> None:
        nodes, workloads = {node.name for node in topology.nodes}, {each.name for each in topology.workloads}
        there, with_mounts = self._places.networks.keys(), self._places.mounts.keys()
        gone = [name for name in there if name not in (workloads if name in with_mounts else nodes)]
        await self._release(gone)

    async def _release(self, gone: Collection[str]) -> None:
        """End the namespaces of nodes and workloads, and what runs in them."""
        networks = self._places.networks
        await self._collector.listen_in(networks[name] for name in networks if name not in gone)
        await self._places.remove(gone)

    async def _clients_of(self, endpoints: Collection[str]) -> list[Process]:
        """The running clients with a wire to one of `endpoints`, which they must close while those still run."""
        if not endpoints:
            return []
        wires = (await self.status())["wires"]
        names = {wire["client"] for wire in wires if split(wire["endpoint"])[0] in endpoints}
        return [process for process in self._processes if process.name in names and process.runs]

    async def _unregister(self, part: Component) -> None:
        manager = next((name for name in self._managers(part.node)), None)
        if manager is not None:
            workload_api = f"unix://{self._run.identity_of(part.name)}"
            await unregister_endpoint(workload_api, manager_of(self._run, manager), part.environment["NSM_NAME"])

    def _managers(self, node: str) -> list[str]:
        """The nodes whose managers run, of the same domain as `node`, and `node` first."""
        managers = [process for process in self._processes if process.what.command == "nsmgr" and process.runs]
        domain = next((each.what.domain for each in self._processes if each.what.node == node), "")
        running = [process.what.node for process in managers if process.what.domain == domain]
        return sorted(running, key=lambda name: name != node)

    def _change_links(self, topology: Topology) -> None:
        if self._links is None and (topology.links or topology.uplinks):
            from .underlay import Underlay  # noqa: PLC0415 - needs netlink, and a mesh of one node does not

            self._links = Underlay()
        if self._links is not None:
            networks = {node.name: self._places.networks[node.name] for node in topology.nodes}
            as_cards = any(each.kind == "vpp" for node in topology.nodes for each in node.forwarders)
            self._links.change(topology.links, topology.uplinks, networks, as_cards=as_cards)
            self._links.restore_all()

    async def _write_entries(self, parts: list[Component]) -> None:
        """Write the identity entries; the issuers read them at their start, and on SIGHUP."""
        for domain in self._topology.all_domains:
            name = issuer_of(self._topology, domain)
            text, file = entries(self._run, self._topology, parts, domain), self._run.entries_of(name)
            text += attached_entries(self._run, self._topology, self._attached, domain)
            if file.exists() and file.read_text() == text:
                continue
            file.write_text(text)
            issuer = self._processes.get(name)
            if issuer is not None and issuer.runs:
                await self._processes.until_ready(issuer)
                await self._processes.signal_until(issuer, signal.SIGHUP, "entries read")

    async def _become_operator(self) -> None:
        for domain in self._topology.all_domains:
            if domain.name not in self._pools:
                workload_api = f"unix://{self._run.identity_of(operator_of(self._topology, domain))}"
                identity = await self._operator.enter_async_context(identity_from(workload_api, token_lifetime=600))
                self._pools[domain.name] = await self._operator.enter_async_context(Pool(identity))

    async def _register_services(self, topology: Topology) -> None:
        for domain in topology.all_domains:
            if not domain.is_floating:
                kept = self._registrations.setdefault(domain.name, Registrations())
                await kept.keep(
                    self._pools[domain.name], manager_of(self._run, domain.first), services_of(topology, domain)
                )

    async def _until_registered(self, parts: Iterable[Component]) -> None:
        """Wait for components to register again after their manager restarted; user's programs may use other names."""
        waiting = [
            self._until_known_to(
                node.name,
                {part.name for part in parts if part.node == node.name and _registers(part) and not part.is_waiting},
            )
            for node in self._topology.managed
        ]
        await asyncio.gather(*waiting)

    async def _until_known_to(self, node: str, names: set[str]) -> None:
        waits_for = f"nsmgr of {node}: waits until {', '.join(sorted(names))} register again"
        self._waits_for.add(waits_for)
        pool = self._pools[self._topology.domain_of(node).name]
        await until_registered(pool, manager_of(self._run, node), names)
        self._waits_for.discard(waits_for)

    async def _start_all(self, parts: Iterable[Component]) -> None:
        """Start those that are not running; wait until all are ready."""
        wanted = [self._running(part) for part in parts]
        await asyncio.gather(*(self._processes.until_ready(process) for process in wanted))

    def _start_on_demand(self, supplier: Process, name: str) -> None:
        """Start an endpoint that a supplier wants, if it may: also while the mesh changes, as clients wait for it."""
        part = self._wanted.get(name)
        if part is None or not part.is_waiting or name not in supplied_by(supplier.what) or self._is_running(name):
            return
        starting = asyncio.ensure_future(self._start_wanted(part))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _start_wanted(self, part: Component) -> None:
        try:
            await self._start_all([part])
        except (MeshCommandError, OSError) as error:
            self._tell({"event": "failed", "component": part.name, "reason": str(error)})

    def _start_view(self) -> None:
        """Start the view, if it is to run and does not. The mesh does not wait for it, and is fine without it."""
        part = self._wanted.get(VIEW)
        if part is None or self._view is None or self._is_running(VIEW) or self.stopping.is_set():
            return
        try:
            self._processes.start(self._view.starting(part), None, None)
        except (MeshCommandError, OSError) as error:
            self._tell({"event": "failed", "component": VIEW, "reason": str(error)})

    def _as_started(self, part: Component | None) -> Component | None:
        """A component as its process is started."""
        return self._view.listening(part) if part is not None and part.name == VIEW and self._view is not None else part

    def _is_running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.runs

    def _running(self, part: Component) -> Process:
        process = self._processes.get(part.name)
        if process is None or not process.runs:
            network = self._places.networks[part.place] if part.place else None
            mounts = self._places.mounts.get(part.place)
            process = self._processes.start(part, network, mounts)
        return process

    async def _stop_all(self, processes: Iterable[Process]) -> None:
        await asyncio.gather(*(self._processes.stop(process.name) for process in processes))

    async def _until_wires_are_up(self) -> None:
        """Wait for wires that broke while parts of the mesh were away: their clients heal them."""
        while lost := [wire for wire in (await self.status())["wires"] if self._is_lost(wire)]:
            waits_for = {f"{wire['client']}: {wire['interface']} is {wire['state']}" for wire in lost}
            self._waits_for |= waits_for
            await asyncio.sleep(_LOOK_AGAIN)
            self._waits_for -= waits_for

    def _is_lost(self, wire: Mapping[str, Any]) -> bool:
        """Whether a wire is wanted and not up; a client that follows a file, or is not in ours, may want others."""
        if wire["client"] in self._attached:
            return False
        client = self._wanted.get(wire["client"])
        follows = client is None or "NSM_NETWORK_SERVICES_FILE" in client.environment
        return wire["state"] != "UP" and (bool(wire["path"]) or not follows)

    async def _ask_all(self, names: Mapping[str, Sequence[str]], index: int) -> dict[str, Known]:
        """The connections of the components with these names, by node."""
        asked = [self._ask(name, index) for of_node in names.values() for name in of_node]
        answers = iter(await asyncio.gather(*asked))
        return {node: together([next(answers) for _ in of_node]) for node, of_node in names.items()}

    async def _ask(self, name: str, index: int) -> Known:
        url = f"unix://{self._run.socket_of(name)}"
        process = self._processes.get(name)
        pool = self._pools.get(process.what.domain) if process is not None else None
        if pool is None:
            return Known(fault="the mesh is not up yet")
        if process is None or not process.runs:
            return Known(fault=f"cannot reach {name}: it {process.state if process else 'was not started'}")
        return await known_to(pool, url, index)

    def _missing(self) -> list[str]:
        late = [p for p in self._processes if p.pid and not p.ready.is_set()]
        return (
            [f"{process.name}: {process.last or 'it is not ready'}" for process in late]
            or sorted(self._waits_for)
            or [_BEGINS]
        )

    def _tell(self, event: Mapping[str, Any]) -> None:
        for tell in list(self.listeners):
            tell(event)


def _registers(part: Component) -> bool:
    """Whether it registers at its manager under its own name, as far as is known here."""
    return part.command in REGISTERED and part.command != PROGRAM and part.environment["NSM_NAME"] == part.name


def _common(environment: Mapping[str, str], log_level: str) -> dict[str, str]:
    """The part of the starting command's environment that components receive."""
    traces = {key: value for key, value in environment.items() if key.startswith("OTEL_") or key == "TELEMETRY"}
    path = f"{os.path.dirname(sys.executable)}:{environment.get('PATH', os.defpath)}"  # `python` is this one
    return {"PATH": path, "NSM_LOG_LEVEL": component_level(log_level), **traces}
