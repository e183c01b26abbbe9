"""`nsm demo`: starts a mesh, pings over its wire both ways, and removes everything."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nsm.chains.model.domains import join
from nsm.chains.terminal import escaped_lines
from nsm.chains.tools.arguments import Parser

from .control import ask
from .model import FORWARDERS, ClientSpec, Domain, EndpointSpec, Forwarder, Link, Node, Topology
from .rundir import MeshCommandError, RunDir
from .topology import TopologyError, read

CLIENT, ENDPOINT = "client", "endpoint"
_UP_TIMEOUT = 15.0


def main(arguments: list[str]) -> int:
    """Starts a mesh, shows a ping crossing its wire, and takes it down."""
    parser = Parser(prog="nsm demo", description=main.__doc__)
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        choices=range(1, 10),
        metavar="N",
        help="the number of nodes to cross, 1 to 9 [1]",
    )
    parser.add_argument("--forwarder", default="kernel", choices=FORWARDERS, help="what forwards the packets [kernel]")
    parser.add_argument(
        "--domains",
        type=int,
        default=1,
        choices=range(1, 6),
        metavar="N",
        help="the number of domains, each with a node, a registry and proxies of its own, 1 to 5 [1]",
    )
    parser.add_argument("--trace", action="store_true", help="show the wire's set-up as a waterfall of spans")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if parsed.forwarder == "vpp":
            _check_vpp()
        if parsed.domains > 1 and parsed.nodes > 1:
            parser.error("--domains and --nodes exclude each other: each domain has one node")
        return _Demo(parsed.nodes, parsed.domains, parsed.forwarder, trace=parsed.trace).run()
    except (MeshCommandError, TopologyError) as error:
        print(escaped_lines(f"nsm demo: {error}"), file=sys.stderr)
        return 1


def _check_vpp() -> None:
    """Raise `MeshCommandError` that tells how to install VPP if it is missing."""
    from nsm.forwarder_vpp.process import not_installed  # noqa: PLC0415 - only who wants it needs it

    if (missing := not_installed()) is not None:
        raise MeshCommandError(missing)


def demo_topology(nodes: int, domains: int = 1, forwarder: str = "kernel") -> Topology:
    """The built-in mesh; with several nodes or domains, the client is on the first and the endpoint on the last."""
    if nodes == domains == 1:
        topology = read(None)
        return replace(
            topology, nodes=tuple(replace(node, forwarders=(Forwarder(forwarder),)) for node in topology.nodes)
        )
    names = [f"node-{number}" for number in range(1, max(nodes, domains) + 1)]
    parts = [Domain(f"my.domain{number}", (name,)) for number, name in enumerate(names, 1)] if domains > 1 else []
    service = join("icmp-responder", parts[-1].name if parts else "")
    client = ClientSpec(CLIENT, names[0], (f"kernel://{service}/nsm-1",))
    prefixes = ("10.0.0.0/24", "fd00::/120")
    endpoint = EndpointSpec(ENDPOINT, names[-1], ("icmp-responder",), "ETHERNET", prefixes)
    link = Link(tuple(names), ipaddress.ip_network("172.16.1.0/24"))
    made = tuple(Node(name, (Forwarder(forwarder),)) for name in names)
    return Topology(made, (link,), endpoints=(endpoint,), clients=(client,), domains=tuple(parts))


def _described(nodes: int, domains: int) -> str:
    if domains > 1:
        return f"{domains} domains of a node each, a client in the first and an endpoint in the last"
    if nodes == 1:
        return "one node, a client and an endpoint in their own namespaces"
    return f"{nodes} linked nodes, a client on the first and an endpoint on the last, in their own namespaces"


class _Demo:
    def __init__(self, nodes: int, domains: int, forwarder: str = "kernel", *, trace: bool) -> None:
        self._nodes, self._domains, self._forwarder = nodes, domains, forwarder
        self._run = RunDir.of(f"demo-{os.getpid()}")
        self._trace = trace
        self._began = time.perf_counter()

    def run(self) -> int:
        from .enter import down  # noqa: PLC0415 - after the arguments have been read

        self._say(f"a mesh on this machine: {_described(self._nodes, self._domains)}")
        pids: list[int] = []
        try:
            self._start()
            status = ask(self._run, {"command": "status"})
            pids, wire = [component["pid"] for component in status["components"]], status["wires"][0]
            self._show_wire(wire)
            if self._trace:
                self._show_trace()
            self._ping(CLIENT, wire["dst_ips"], "the client pings the endpoint")
            self._ping(ENDPOINT, wire["src_ips"], "the endpoint pings the client")
            self._say("the client stops and closes its wire")
            ask(self._run, {"command": "stop", "component": CLIENT})
            self._verify_closed()
        finally:
            if self._run.is_held():
                down(self._run)
        self._verify_gone(pids)
        self._say(f"done in {time.perf_counter() - self._began:.1f} s, everything is removed")
        return 0

    def _start(self) -> None:
        from .launch import up  # noqa: PLC0415 - as above
        from .view import WITHOUT_VIEW  # noqa: PLC0415 - as above

        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"file://{self._run.traces}"} if self._trace else {}
        up(
            self._run,
            demo_topology(self._nodes, self._domains, self._forwarder),
            self._show,
            timeout=_UP_TIMEOUT,
            environment={**os.environ, WITHOUT_VIEW: "true", **traces},
        )

    def _say(self, text: str) -> None:
        print(escaped_lines(f"[{time.perf_counter() - self._began:6.2f} s] {text}"), flush=True)

    def _show(self, event: Mapping[str, Any]) -> None:
        component = event.get("component", "")
        if event["event"] == "started" and component != CLIENT:
            self._say(f"{component} is ready after {event['ms']} ms")
        elif event["event"] == "wire made":
            self._say(f"{component} created the wire in {event['ms']} ms")
        elif event["event"] == "wire up":
            self._say(f"{component} requested {event['service']} and has {event['interface']} after {event['ms']} ms")
        elif event["event"] in {"no wire yet", "ended"}:
            self._say(f"{component}: {event['event']}: {event.get('error') or event.get('reason')}")

    def _show_wire(self, wire: Mapping[str, Any]) -> None:
        self._say(f"path of the request: {' → '.join(wire['path'])}")
        if (tunnel := wire.get("tunnel")) is not None:
            ends = f"{tunnel['parameters'].get('src_ip')} to {tunnel['parameters'].get('dst_ip')}"
            self._say(f"the wire runs over {tunnel['mechanism']} from {ends}")
        self._say(f"addresses: client {', '.join(wire['src_ips'])}, endpoint {', '.join(wire['dst_ips'])}")

    def _show_trace(self) -> None:
        from .waterfall import render, spans_of  # noqa: PLC0415

        print(render(spans_of(self._run.traces)), flush=True)

    def _ping(self, workload: str, addresses: list[str], about: str) -> None:
        for address in addresses:
            host = address.partition("/")[0]
            command = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", host]
            lines = self._output(workload, command)
            received = [line for line in lines if " bytes from " in line]
            if len(received) != 3:
                raise MeshCommandError(f"{about}: {len(received)} of 3 replies from {host}: {lines[-1:]}")
            self._say(f"{about}: {received[-1]}")

    def _verify_closed(self) -> None:
        """Check that the endpoint's end of the wire is gone."""
        interfaces = [line.partition(":")[0].strip() for line in self._output(ENDPOINT, ["cat", "/proc/net/dev"])[2:]]
        if interfaces != ["lo"]:
            raise MeshCommandError(f"the wire was closed, but the endpoint still has {interfaces}")
        self._say("the endpoint's end of the wire is gone")

    def _verify_gone(self, pids: list[int]) -> None:
        alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if alive or self._run.path.exists():
            raise MeshCommandError(f"something remains: processes {alive}, {self._run.path}")

    def _output(self, workload: str, command: list[str]) -> list[str]:
        words = [sys.executable, "-m", "nsm.chains", "mesh", "--name", self._run.name, "exec", workload, "--", *command]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=15, check=False)
        except subprocess.TimeoutExpired:
            raise MeshCommandError(f"{' '.join(command)} in {workload} did not end") from None
        if done.returncode:
            raise MeshCommandError(f"{' '.join(command)} in {workload}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.splitlines()
