"""The mesh that chaos goes through: wires inside two nodes and between them, two endpoints a service; a third node."""

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import registry_at
from nsm.chains.core import RegistryCall
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Pool
from nsm.mesh.control import ask
from nsm.mesh.plan import OPERATOR, manager_of
from nsm.mesh.rundir import RunDir

NSM = [sys.executable, str(Path(__file__).with_name("counted.py"))]
NODES = ("node-1", "node-2")
OTHER_NODE = "node-3"
"""No wire has anything to do with it."""
TOKENS = "20s"
"""How long tokens live: long enough for refreshes on a busy machine, short enough to end within a round."""

POLICIES = """\
- {proto: 17, dstport: "6666"}
- {proto: 6, srcport: "5555"}
"""
PAYLOADS = {"one": "IP", "two": "ETHERNET", "ways": "IP", "spare": "IP"}
"""Of the services: between nodes, IP goes by WireGuard and ETHERNET by VXLAN."""
ENDPOINTS = {
    "one-a": ("node-1", "one", "10.1.0.0/27"),
    "one-b": ("node-1", "one", "10.1.1.0/27"),
    "two-a": ("node-2", "two", "10.2.0.0/24"),
    "two-b": ("node-2", "two", "10.2.1.0/24"),
    "ways-a": ("node-1", "ways", "10.3.0.0/24"),
    "ways-b": ("node-2", "ways", "10.3.1.0/24"),
}
"""Node, service and addresses by name."""
NAMED = "one"
"""The service whose endpoints resolve names of the domain `one.test` for their clients."""
SPARE = {"spare": (OTHER_NODE, "spare", "10.9.0.0/24")}
"""The same of an endpoint that no client uses."""
CLIENTS = {
    "ada": ("node-1", {"nsm-1": "one", "nsm-2": "two"}),
    "bob": ("node-2", {"nsm-1": "one", "nsm-2": "two"}),
    "cat": ("node-1", {"nsm-1": "ways", "nsm-2": "one"}),
    "dan": ("node-1", {"nsm-1": "ways"}),
}
"""Node and wanted services by interface, at the beginning."""
MANAGERS = tuple(f"nsmgr-{node}" for node in NODES)
FORWARDERS = tuple(f"forwarder-{node}" for node in NODES)
CONTROL = ("identity", "registry-node-1", *MANAGERS, *FORWARDERS)
"""What the wires need."""
OTHERS = (f"nsmgr-{OTHER_NODE}", f"forwarder-{OTHER_NODE}", *SPARE)
COMPONENTS = (*CONTROL, *ENDPOINTS, *CLIENTS, *OTHERS)
REGISTERED = {*ENDPOINTS, *SPARE, *FORWARDERS, f"forwarder-{OTHER_NODE}"}
"""The names of all records of endpoints."""
_COUNTS_WITHIN = 5.0
"""Seconds that a component on a busy machine may take to write down its tasks."""


class Mesh:
    """The mesh `name`; its files are in `folder`."""

    def __init__(self, name, folder):
        self.run, self.folder = RunDir.of(name), Path(folder)
        self.wanted = {client: dict(wires) for client, (_, wires) in CLIENTS.items()}
        self.node_of = {name: node for name, (node, *_) in {**ENDPOINTS, **SPARE, **CLIENTS}.items()}
        """The node of each workload."""
        self.chosen = {}
        """By service: the endpoint that clients get if an edit of the service says so."""

    async def up(self):
        """Start it, or make it what `chosen` says."""
        (self.folder / "policies.yaml").write_text(POLICIES)
        (self.folder / "tasks").mkdir(exist_ok=True)
        for client in CLIENTS:
            self.write_wanted(client)
        file = self.folder / "mesh.yaml"
        file.write_text(self.topology())
        await self._nsm("up", "-f", str(file), "--timeout", "120")

    async def down(self):
        """Take it down. Raises `AssertionError` if a process or a file of it is left."""
        await self._nsm("down")
        assert not self.run.path.exists(), f"{self.run.path} is left"

    async def keep_logs(self, file):
        """Write what all components logged to `file`."""
        words = [*NSM, str(self.folder / "tasks"), "mesh", "--name", self.run.name, "logs"]
        with Path(file).open("wb") as output:
            process = await asyncio.create_subprocess_exec(*words, stdout=output)
            await process.wait()

    async def ask(self, request):
        """Have the supervisor do something; its answer."""
        return await asyncio.to_thread(ask, self.run, request)

    async def kill(self, *names, number=signal.SIGKILL, namespaces=False):
        """Send a signal to several components, all at once."""
        request = {"command": "kill", "signal": int(number), "namespaces": namespaces}
        await asyncio.gather(*(self.ask({**request, "component": name}) for name in names))

    async def start(self, *names):
        """Start what has ended; returns when all are ready."""
        await self.ask({"command": "start", "components": list(names)})

    async def status(self):
        """As `nsm mesh status --json` shows it."""
        return await self.ask({"command": "status"})

    async def tasks(self, pids):
        """The names of the tasks of processes, by their pids; one that has ended has none."""
        return dict(zip(pids, await asyncio.gather(*(self._tasks_of(pid) for pid in pids)), strict=True))

    async def _tasks_of(self, pid):
        file, end = self.folder / "tasks" / str(pid), asyncio.get_running_loop().time() + _COUNTS_WITHIN
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGRTMIN)
            while not file.exists():
                os.kill(pid, 0)
                assert asyncio.get_running_loop().time() < end, f"process {pid} does not count its tasks"
                await asyncio.sleep(0.01)  # another process writes it
        names = json.loads(file.read_text()) if file.exists() else []
        file.unlink(missing_ok=True)
        return names

    async def records(self):
        """The names of all endpoints that the registry has, by the manager that was asked for them."""
        async with (
            identity_from(f"unix://{self.run.identity_of(OPERATOR)}", token_lifetime=600) as identity,
            Pool(identity) as pool,
        ):
            asked = {node: registry_at(manager_of(self.run, node), pool) for node in (*NODES, OTHER_NODE)}
            return {node: await _names_in(registry) for node, registry in asked.items()}

    def write_wanted(self, client):
        """The file of the services that a client wants, which it watches."""
        lines = [f"kernel://{service}/{interface}" for interface, service in self.wanted[client].items()]
        file = self.folder / f"{client}.urls"
        file.with_suffix(".new").write_text("\n".join(lines) + "\n")
        os.replace(file.with_suffix(".new"), file)

    def wires(self):
        """All that are wanted: client, interface."""
        return [(client, interface) for client, wires in self.wanted.items() for interface in wires]

    def service_of(self, wire):
        """What is wanted there."""
        return self.wanted[wire[0]][wire[1]]

    def topology(self):
        """The file."""
        tokens = f"NSM_MAX_TOKEN_LIFETIME: {TOKENS}"
        lines = ["nodes:"]
        for node in (*NODES, OTHER_NODE):
            lines += [
                f"  - name: {node}",
                f"    forwarder: {{environment: {{{tokens}}}}}",
                f"    manager: {{environment: {{{tokens}}}}}",
            ]
        lines += [
            "links:",
            f"  - {{nodes: [{', '.join(NODES)}], network: 172.31.1.0/24}}",
            f"  - {{nodes: [{NODES[0]}, {OTHER_NODE}], network: 172.31.2.0/24}}",
            "services:",
        ]
        for service, payload in PAYLOADS.items():
            chosen = self.chosen.get(service)
            to = f"{{destination_selector: {{called: {chosen}}}}}" if chosen else "{destination_selector: {}}"
            matches = f"[{{source_selector: {{}}, routes: [{to}]}}]"
            lines.append(f"  - {{name: {service}, payload: {payload}, matches: {matches}}}")
        lines.append("endpoints:")
        for name, (node, service, prefix) in {**ENDPOINTS, **SPARE}.items():
            payload = PAYLOADS[service]
            more = ", NSM_IPAM_POLICY: strict"  # else clients keep the addresses of endpoints that they had before
            more += f", NSM_PBR_CONFIG_PATH: {self.folder}/policies.yaml" if service == "ways" else ""
            if service == NAMED:
                servers = [str(address) for address in [*ipaddress.ip_network(prefix)][::2]]  # a client reaches one
                names = [{"dns_server_ips": servers, "search_domains": [f"{NAMED}.test"]}]
                more += f", NSM_DNS_CONFIGS: '{json.dumps(names)}'"
            lines += [
                f"  - {{name: {name}, node: {node}, services: [{service}], payload: {payload}, prefixes: [{prefix}],",
                f"     labels: {{called: {name}}}, environment: {{{tokens}{more}}}}}",
            ]
        lines.append("clients:")
        for name, (_, wires) in CLIENTS.items():
            node = self.node_of[name]
            urls = ", ".join(f"kernel://{service}/{interface}" for interface, service in wires.items())
            lines.append(f"  - {{name: {name}, node: {node}, wires: [{urls}],")
            lines.append(f"     environment: {{{tokens}, NSM_NETWORK_SERVICES_FILE: {self.folder}/{name}.urls}}}}")
        return "\n".join(lines) + "\n"

    async def _nsm(self, *words):
        command = [*NSM, str(self.folder / "tasks"), "mesh", "--name", self.run.name, *words]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NSM_LOG_LEVEL": os.environ.get("NSM_LOG_LEVEL", "INFO")},
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, f"{' '.join(command[2:])}: {told.decode()}"


def own_address(endpoint):
    """That of an endpoint on its first wire: it gives pairs from its prefix, its own address first."""
    return ipaddress.ip_network(ENDPOINTS[endpoint][2])[0]


async def _names_in(registry):
    deadline = asyncio.get_running_loop().time() + 5.0
    call = RegistryCall(NetworkServiceEndpoint(), deadline=deadline)
    return [each.record.name async for batch in registry.find(call) for each in batch if not each.deleted]
