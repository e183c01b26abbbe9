"""The mesh that chaos goes through: two nodes, wires inside them and between them, two endpoints for each service."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

NSM = [sys.executable, "-m", "nsm.chains"]
NODES = ("node-1", "node-2")
TOKENS = "20s"
"""How long tokens live: long enough for refreshes on a busy machine, short enough to end within a round."""

POLICIES = """\
- {proto: 17, dstport: "6666"}
- {proto: 6, srcport: "5555"}
"""
PAYLOADS = {"one": "IP", "two": "ETHERNET", "ways": "IP"}
"""Of the services: between nodes, IP goes by WireGuard and ETHERNET by VXLAN."""
ENDPOINTS = {
    "one-a": ("node-1", "one", "10.1.0.0/24"),
    "one-b": ("node-1", "one", "10.1.1.0/24"),
    "two-a": ("node-2", "two", "10.2.0.0/24"),
    "two-b": ("node-2", "two", "10.2.1.0/24"),
    "ways-a": ("node-1", "ways", "10.3.0.0/24"),
    "ways-b": ("node-2", "ways", "10.3.1.0/24"),
}
"""Node, service and addresses by name."""
CLIENTS = {
    "ada": ("node-1", {"nsm-1": "one", "nsm-2": "two"}),
    "bob": ("node-2", {"nsm-1": "one", "nsm-2": "two"}),
    "cat": ("node-1", {"nsm-1": "ways", "nsm-2": "one"}),
    "dan": ("node-1", {"nsm-1": "ways"}),
}
"""Node and wanted services by interface."""
MANAGERS = tuple(f"nsmgr-{node}" for node in NODES)
FORWARDERS = tuple(f"forwarder-{node}" for node in NODES)
CONTROL = ("identity", "registry-node-1", *MANAGERS, *FORWARDERS)


class Mesh:
    """The mesh `name`; its files are in `folder`."""

    def __init__(self, name, folder):
        self.run, self.folder = RunDir.of(name), Path(folder)
        self.wanted = {client: dict(wires) for client, (_, wires) in CLIENTS.items()}
        self.chosen = {}
        """By service: the endpoint that clients get if an edit of the service says so."""

    async def up(self):
        """Start it, or make it what `chosen` says."""
        (self.folder / "policies.yaml").write_text(POLICIES)
        for client in CLIENTS:
            self.write_wanted(client)
        file = self.folder / "mesh.yaml"
        file.write_text(self.topology())
        await self._nsm("up", "-f", str(file), "--timeout", "60")

    async def down(self):
        """Take it down. Raises `AssertionError` if a process or a file of it is left."""
        await self._nsm("down")
        assert not self.run.path.exists(), f"{self.run.path} is left"

    async def keep_logs(self, file):
        """Write what all components logged to `file`."""
        words = [*NSM, "mesh", "--name", self.run.name, "logs"]
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
        for node in NODES:
            lines += [
                f"  - name: {node}",
                f"    forwarder: {{environment: {{{tokens}}}}}",
                f"    manager: {{environment: {{{tokens}}}}}",
            ]
        lines += [f"links: [{{nodes: [{', '.join(NODES)}], network: 172.31.1.0/24}}]", "services:"]
        for service in sorted({service for _, service, _ in ENDPOINTS.values()}):
            chosen = self.chosen.get(service)
            to = f"{{destination_selector: {{called: {chosen}}}}}" if chosen else "{destination_selector: {}}"
            matches = f"[{{source_selector: {{}}, routes: [{to}]}}]"
            lines.append(f"  - {{name: {service}, payload: {PAYLOADS[service]}, matches: {matches}}}")
        lines.append("endpoints:")
        for name, (node, service, prefix) in ENDPOINTS.items():
            payload = PAYLOADS[service]
            more = ", NSM_IPAM_POLICY: strict"  # else clients keep the addresses of endpoints that they had before
            more += f", NSM_PBR_CONFIG_PATH: {self.folder}/policies.yaml" if service == "ways" else ""
            lines += [
                f"  - {{name: {name}, node: {node}, services: [{service}], payload: {payload}, prefixes: [{prefix}],",
                f"     labels: {{called: {name}}}, environment: {{{tokens}{more}}}}}",
            ]
        lines.append("clients:")
        for name, (node, wires) in CLIENTS.items():
            urls = ", ".join(f"kernel://{service}/{interface}" for interface, service in wires.items())
            lines.append(f"  - {{name: {name}, node: {node}, wires: [{urls}],")
            lines.append(f"     environment: {{{tokens}, NSM_NETWORK_SERVICES_FILE: {self.folder}/{name}.urls}}}}")
        return "\n".join(lines) + "\n"

    async def _nsm(self, *words):
        command = [*NSM, "mesh", "--name", self.run.name, *words]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NSM_LOG_LEVEL": os.environ.get("NSM_LOG_LEVEL", "INFO")},
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, f"{' '.join(command[2:])}: {told.decode()}"
