"""A vL3: how soon a client is in it, all clients reach each other, and names are found; and what a load balancer costs.

python -m bench.vl3 [FIGURE ...]
"""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.message

from bench.running import NSM, in_workload, load, mesh, pids
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

Figure = tuple[str, Sequence[float], str]

SETUPS, HEALS, QUERIES, ROUNDS = 100, 5, 200, 10
NODES, CLIENTS = 5, 60
_BOUND = 60.0
_PATIENCE = 0.1
_ECHO, _HEAD = 8, struct.Struct("!BBHHH")
_NEW_NETWORK = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Echoes:
    """Sends echoes from the network namespaces of workloads, by a socket in each of them."""

    def __init__(self, processes: Mapping[str, int], stack: ExitStack) -> None:
        self._sockets = {name: stack.enter_context(_socket_in(pid)) for name, pid in processes.items()}

    def missing(self, addresses: Mapping[str, str]) -> set[tuple[str, str]]:
        """The pairs of two workloads, of whom the second does not answer the first."""
        missing = {(one, other) for one in self._sockets for other in addresses if one != other}
        for one, sock in self._sockets.items():
            for other, address in addresses.items():
                if one != other:
                    self._send(sock, address)
        end = time.monotonic() + _PATIENCE
        names = {address: name for name, address in addresses.items()}
        while missing and time.monotonic() < end:
            for one, sock in self._sockets.items():
                missing -= {(one, names[source]) for source in _received(sock) if source in names}
        return missing

    @staticmethod
    def _send(sock: socket.socket, address: str) -> None:
        try:
            sock.sendto(_HEAD.pack(_ECHO, 0, 0, 0, 1), (address, 0))
        except OSError:
            return  # there is no route yet


def _socket_in(pid: int, kind: int = socket.IPPROTO_ICMP) -> socket.socket:
    """A socket of datagrams in the network namespace of a process."""
    with open(f"/proc/{pid}/ns/net") as there, open("/proc/self/ns/net") as here:
        _enter(there.fileno())
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, kind)
        finally:
            _enter(here.fileno())
    sock.setblocking(False)
    return sock


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def _received(sock: socket.socket) -> Iterator[str]:
    while True:
        try:
            _, (source, _) = sock.recvfrom(1500)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error
        yield source


def _addresses(run: RunDir, clients: Sequence[str]) -> dict[str, str]:
    """The IPv4 address of each client that has a wire."""
    found = {}
    for wire in ask(run, {"command": "status"})["wires"]:
        if wire["client"] in clients and wire["src_ips"]:
            found[wire["client"]] = wire["src_ips"][0].partition("/")[0]
    return found


def _until_all_answer(run: RunDir, echoes: Echoes, clients: Sequence[str]) -> None:
    """Raises RuntimeError."""
    end = time.monotonic() + _BOUND
    while True:
        addresses = _addresses(run, clients)
        missing = echoes.missing(addresses) if len(addresses) == len(clients) else {("", "")}
        if not missing:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"{len(missing)} pairs do not answer, among them {min(missing)}")


_NEAR = """\
services:
  - name: office
    payload: IP
    matches:
      - {fallthrough: true, routes: [{destination_selector: {nodeName: "{{ .nodeName }}"}}]}
      - routes: [{destination_selector: {}}]
"""


def topology(nodes: int, clients: int, more: str = "") -> str:
    """An endpoint on each node, and the clients on all of them in turn. Clients prefer the endpoint on their node."""
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    link = f"links: [{{nodes: [{', '.join(names)}], network: 192.168.1.0/24}}]" if nodes > 1 else ""
    wire = "wires: [kernel://office/nsm-1]"
    listed = [
        f"  - {{name: c{number}, node: {names[number % nodes]}, {wire}, environment: {{POD_NAME: c{number}}}}}"
        for number in range(clients)
    ]
    endpoints = [
        f"  - {{name: office-{number}, node: {name}, services: [office], runs: nse-vl3}}"
        for number, name in enumerate(names)
    ]
    lines = [
        f"nodes: [{', '.join(f'{{name: {name}}}' for name in names)}]",
        link,
        "vl3: [172.16.0.0/16]",
        _NEAR,
        "endpoints:",
        *endpoints,
        "clients:",
        f"  - {{name: client, node: node-1, {wire}}}",
        *listed,
    ]
    return "\n".join([*lines, more])


def setup() -> list[Figure]:
    """A client's set-up in a vL3 with three endpoints on three nodes, one after another, warm."""
    with mesh("bench-vl3", topology(3, 0)) as run:
        load(run, "-n", "30", "--cycle", service="office")
        result = load(run, "-n", str(SETUPS), "--cycle", "--pause", "0.1", service="office")
    return [("vl3_setup", result["setup"], "ms")]


def heal() -> list[Figure]:
    """An endpoint ends with its namespace → all pairs of eight clients answer again."""
    clients, seconds = [f"c{number}" for number in range(8)], []
    with mesh("bench-vl3-heal", topology(3, 8)) as run, ExitStack() as stack:
        places = pids(run)
        echoes = Echoes({name: places[name] for name in clients}, stack)
        _until_all_answer(run, echoes, clients)
        for number in range(HEALS):
            victim = f"office-{number % 3}"
            begin = time.monotonic()
            ask(run, {"command": "kill", "component": victim, "signal": 9, "namespaces": True})
            _until_all_answer(run, echoes, clients)
            seconds.append(time.monotonic() - begin)
            ask(run, {"command": "start", "components": [victim]})
            _until_all_answer(run, echoes, clients)
    return [("vl3_heal_s", seconds, "s")]


def pairs() -> list[Figure]:
    """From nothing to 60 clients over five nodes that all answer each other."""
    clients = [f"c{number}" for number in range(CLIENTS)]
    begin = time.monotonic()
    with mesh("bench-vl3-pairs", topology(NODES, CLIENTS)) as run, ExitStack() as stack:
        places = pids(run)
        _until_all_answer(run, Echoes({name: places[name] for name in clients}, stack), clients)
        seconds = time.monotonic() - begin
    return [("vl3_60_pairs_s", [seconds], "s")]


def names() -> list[Figure]:
    """Asking one's endpoint for the name of a client of another endpoint."""
    taken = []
    with mesh("bench-vl3-names", topology(2, 6)) as run, ExitStack() as stack:
        wires = {each["client"]: each for each in ask(run, {"command": "status"})["wires"]}
        asking = wires["c0"]
        far = next(name for name, each in wires.items() if each["endpoint"] != asking["endpoint"] and name[0] == "c")
        sock = stack.enter_context(_socket_in(pids(run)["c0"], socket.IPPROTO_UDP))
        sock.settimeout(5)
        sock.connect((asking["dst_ips"][0].partition("/")[0], 53))
        for _ in range(QUERIES):
            query = dns.message.make_query(f"{far}.office", "A")
            begin = time.perf_counter()
            sock.send(query.to_wire())
            answer = dns.message.from_wire(sock.recv(1500))
            taken.append((time.perf_counter() - begin) * 1000)
            if not answer.answer:
                raise RuntimeError(f"{far}.office is not found")
    return [("vl3_dns_ms", taken, "ms")]


_BALANCED = """\
  - name: balancer
    node: node-1
    runs: lb-vl3
    wires: [kernel://office/nsm-1]
    environment: {NSM_PORT: "5201", NSM_SELECTOR: "app:iperf"}
  - {name: server, node: node-1, wires: [kernel://office/nsm-1], labels: {app: iperf}}
"""


def balanced() -> list[Figure]:
    """iperf3 to a server of the vL3 through a load balancer, against the same without it, in turn."""
    ratios = []
    with mesh("bench-vl3-lb", topology(1, 0, _BALANCED)) as run, _serving(run):
        addresses = _addresses(run, ["server", "balancer"])
        for _ in range(ROUNDS):
            bare, wired, again = (_bits(run, addresses[name]) for name in ("server", "balancer", "server"))
            ratios.append(wired / statistics.mean((bare, again)))
    return [("lb_throughput_ratio", ratios, "")]


@contextmanager
def _serving(run: RunDir) -> Iterator[None]:
    serve = [*NSM, "mesh", "exec", "--name", run.name, "server", "--", "iperf3", "-s"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            time.sleep(1)
            yield
        finally:
            in_workload(run, "server", "sh", "-c", "kill $(pidof iperf3)")
            server.wait()


def _bits(run: RunDir, target: str) -> float:
    """Bits a second, over one second."""
    words = f"iperf3 -c {target} -t 1 -J | grep -A9 sum_received | grep bits_per_second"
    return float(in_workload(run, "client", "sh", "-c", words).partition(":")[2].strip(" ,\n"))


MEASURES: Mapping[str, Callable[[], list[Figure]]] = {
    "vl3_setup": setup,
    "vl3_heal_s": heal,
    "vl3_60_pairs_s": pairs,
    "vl3_dns_ms": names,
    "lb_throughput_ratio": balanced,
}


def measure(wanted: Sequence[str] = ()) -> list[Figure]:
    """All figures, or the `wanted` ones. Raises RuntimeError."""
    return [figure for name in wanted or MEASURES for figure in MEASURES[name]()]


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    for name, values, unit in measure(sys.argv[1:]):
        print(f"{name:<24}{statistics.median(values):>10.3f}{max(values):>10.3f}  {unit}", flush=True)
