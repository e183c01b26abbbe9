"""How long wires are away when what they need breaks, and what is lost: real meshes under pings.

python -m bench.life [FIGURE ...]
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from bench.running import mesh
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir
from tests.chaos.traffic import Traffic

Figure = tuple[str, float, str]
Wire = tuple[str, str]

ROUNDS, HANG_ROUNDS, CUT_ROUNDS = 20, 7, 3
"""With more cuts in a row the forwarder would repair a wire more slowly."""
_SLOT = 0.02
"""Seconds: how finely the first ping that passes is dated."""
_BOUND = 30.0
_MANY = 100
_NUMBERS = count(1)
_SILENT, _AUDIBLE = "1", "0"
"""Values of icmp_echo_ignore_all."""
_DELETE_LINKS = "ip -o link | grep -v ': lo:' | while IFS=': @' read _ link _; do ip link delete $link; done"
_RESTARTED = ("registry-node-1", "nsmgr-node-1", "nsmgr-node-2", "forwarder-node-1", "forwarder-node-2", "identity")


class Life:
    """A mesh whose clients' wires are pinged."""

    def __init__(self, run: RunDir, traffic: Traffic, wires: Sequence[Wire]) -> None:
        self.run, self.traffic, self.wires = run, traffic, wires

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the supervisor answers."""
        return await asyncio.to_thread(ask, self.run, request)

    async def kill(self, *names: str, namespaces: bool = False) -> None:
        """All at once, with SIGKILL."""
        request = {"command": "kill", "signal": int(signal.SIGKILL), "namespaces": namespaces}
        await asyncio.gather(*(self.ask({**request, "component": name}) for name in names))

    async def start(self, *names: str) -> None:
        """Start again; returns when they are ready."""
        await self.ask({"command": "start", "components": list(names)})

    def targets(self) -> set[str]:
        """The addresses that are pinged."""
        return {self.traffic.target(wire) for wire in self.wires}

    async def endpoint_of(self, wire: Wire) -> str:
        """Who is at the other end, as `nsm mesh status` has it."""
        wires = (await self.ask({"command": "status"}))["wires"]
        found: str = next(each["endpoint"] for each in wires if (each["client"], each["interface"]) == wire)
        return found

    async def until_passing(self, since: float, left: Collection[str] = (), bound: float = _BOUND) -> float:
        """The seconds from `since` until the last wire passes packets to none of `left`. Raises RuntimeError."""
        back = await self.traffic.until_passing(list(self.wires), since, bound, left)
        if missing := [wire for wire in self.wires if wire not in back]:
            raise RuntimeError(f"{len(missing)} of {len(self.wires)} wires do not come back, among them {missing[0]}")
        return max(back.values())

    async def run_in(self, workload: str, script: str) -> None:
        """A shell command in the namespace of a workload. Raises RuntimeError."""
        place = await self.ask({"command": "place", "workload": workload})
        namespace = f"--net=/proc/{place['supervisor']}/fd/{place['network']}"
        process = await asyncio.create_subprocess_exec("nsenter", namespace, "sh", "-c", script)
        if await process.wait():
            raise RuntimeError(f"{script} failed in {workload}")


@asynccontextmanager
async def _living(topology: str, clients: dict[str, Sequence[str]], rate: float, slot: float) -> AsyncIterator[Life]:
    with mesh(f"life-{os.getpid()}-{next(_NUMBERS)}", topology) as run:
        wires = [(client, wire) for client, names in clients.items() for wire in names]

        async def asked(request: dict[str, Any]) -> dict[str, Any]:
            return await asyncio.to_thread(ask, run, request)

        life = Life(run, Traffic(asked, rate, slot), wires)
        try:
            await life.traffic.start_all(list(clients))
            await life.until_passing(time.monotonic())
            yield life
        finally:
            await life.traffic.stop()


def _two_endpoints(nodes: Sequence[str], clients: int = 1) -> str:
    names = ", ".join(f"{{name: {node}}}" for node in nodes)
    links = f"links: [{{nodes: [{', '.join(nodes)}], network: 172.31.1.0/24}}]" if len(nodes) > 1 else ""
    wants = "\n".join(
        f"  - {{name: client-{number}, node: {nodes[0]}, wires: [kernel://answers/nsm-1]}}" for number in range(clients)
    )
    strict = "environment: {NSM_IPAM_POLICY: strict}"
    answers = f"node: {nodes[-1]}, services: [answers], payload: IP, {strict}"
    return f"""
nodes: [{names}]
{links}
endpoints:
  - {{name: one, {answers}, prefixes: [10.1.0.0/22]}}
  - {{name: two, {answers}, prefixes: [10.2.0.0/22]}}
clients:
{wants}
"""


async def heal_endpoint() -> list[Figure]:
    """An endpoint ends with its namespace → first ping through another, inside a node and between two."""
    figures: list[Figure] = []
    for name, nodes in (("heal_endpoint_s", ["node-1"]), ("heal_endpoint_far_s", ["node-1", "node-2"])):
        seconds = []
        async with _living(_two_endpoints(nodes), {"client-0": ["nsm-1"]}, 1 / _SLOT, _SLOT) as life:
            for _ in range(ROUNDS):
                victim = await life.endpoint_of(("client-0", "nsm-1"))
                left, begin = life.targets(), time.monotonic()
                await life.kill(victim, namespaces=True)
                seconds.append(await life.until_passing(begin, left))
                await life.start(victim)
        figures += [(name, statistics.median(seconds), "s"), (f"{name[:-2]}_p99_s", _p99(seconds), "s")]
    return figures


async def heal_ping() -> list[Figure]:
    """An endpoint does not answer pings, with its links up → first ping through another."""
    seconds = []
    path = "/proc/sys/net/ipv4/icmp_echo_ignore_all"
    async with _living(_two_endpoints(["node-1"]), {"client-0": ["nsm-1"]}, 1 / _SLOT, _SLOT) as life:
        for _ in range(HANG_ROUNDS):
            victim = await life.endpoint_of(("client-0", "nsm-1"))
            left, begin = life.targets(), time.monotonic()
            await life.run_in(victim, f"echo {_SILENT} > {path}")
            seconds.append(await life.until_passing(begin, left))
            await life.run_in(victim, f"echo {_AUDIBLE} > {path}")
    return [("heal_ping_s", statistics.median(seconds), "s")]


async def heal_100() -> list[Figure]:
    """A hundred clients of one endpoint, which ends with its namespace → the last of them passes packets again."""
    clients = {f"client-{number}": ["nsm-1"] for number in range(_MANY)}
    topology = _two_endpoints(["node-1"], _MANY).partition("  - {name: two")
    alone = topology[0] + "clients:" + topology[2].partition("clients:")[2]
    async with _living(alone, clients, 10, 0.1) as life:
        from nsm.mesh.launch import up  # noqa: PLC0415 - the second endpoint comes when all have the first
        from nsm.mesh.topology import parse  # noqa: PLC0415

        await asyncio.to_thread(up, life.run, parse("".join(topology), "the benchmark's topology"), lambda _: None)
        left, begin = life.targets(), time.monotonic()
        await life.kill("one", namespaces=True)
        return [("heal_100_s", await life.until_passing(begin, left), "s")]


async def cut_noticed() -> list[Figure]:
    """An interface is deleted, at either end, or set down → its forwarder has repaired it; the command's time included.

    One that was set down is left so for 0.3 s, which renaming needs.
    """
    seconds: dict[str, list[float]] = {"cut_noticed_s": [], "cut_down_s": []}
    async with _living(_two_endpoints(["node-1"]), {"client-0": ["nsm-1"]}, 1 / _SLOT, _SLOT) as life:
        log = life.run.log_of("forwarder-node-1")
        for _ in range(CUT_ROUNDS):
            endpoint = await life.endpoint_of(("client-0", "nsm-1"))
            where = [("client-0", _DELETE_LINKS), (endpoint, _DELETE_LINKS), ("client-0", "ip link set nsm-1 down")]
            for figure, (workload, cut) in zip(("cut_noticed_s", "cut_noticed_s", "cut_down_s"), where, strict=True):
                known, begin = len(_times(log, "wire put right")), time.time()
                await life.run_in(workload, cut)
                await _until(lambda known=known: len(_times(log, "wire put right")) > known)
                seconds[figure].append(_times(log, "wire put right")[known] - begin)
                await life.until_passing(time.monotonic())
    return [(name, statistics.median(found), "s") for name, found in seconds.items()]


def _times(log: Path, event: str) -> list[float]:
    """When, in seconds since the epoch, a component logged an event."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if event in line]
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(round(_BOUND / _SLOT)):
        if condition():
            return
        await asyncio.sleep(_SLOT)
    raise TimeoutError


def _crowd() -> tuple[str, dict[str, Sequence[str]]]:
    """Ten local and ten VXLAN wires, four of WireGuard: one client for each kind."""
    kinds = {"local": ("here", 10), "vxlan": ("there", 10), "wireguard": ("secret", 4)}
    wants: list[str] = []
    clients: dict[str, Sequence[str]] = {}
    for client, (service, number_of_wires) in kinds.items():
        clients[client] = [f"nsm-{number}" for number in range(number_of_wires)]
        urls = ", ".join(f"kernel://{service}/{name}" for name in clients[client])
        wants.append(f"  - {{name: {client}, node: node-1, wires: [{urls}]}}")
    return (
        f"""
nodes: [{{name: node-1}}, {{name: node-2}}]
links: [{{nodes: [node-1, node-2], network: 172.31.1.0/24}}]
endpoints:
  - {{name: near, node: node-1, services: [here], payload: IP, prefixes: [10.1.0.0/24]}}
  - {{name: far, node: node-2, services: [there], payload: ETHERNET, prefixes: [10.2.0.0/24]}}
  - {{name: sealed, node: node-2, services: [secret], payload: IP, prefixes: [10.3.0.0/24]}}
clients:
{chr(10).join(wants)}
""",
        clients,
    )


async def restart_loss() -> list[Figure]:
    """Packets lost while the parts of the control plane are killed and started in turn, and without that."""
    topology, clients = _crowd()
    async with _living(topology, clients, 100, 0.1) as life:
        quiet = await _lost_during(life, lambda: asyncio.sleep(10))

        async def restarts() -> None:
            for name in _RESTARTED:
                await life.kill(name)
                await life.start(name)
                await asyncio.sleep(1)

        return [
            ("restart_loss", await _lost_during(life, restarts), ""),
            ("restart_loss_without_kills", quiet, ""),
        ]


async def _lost_during(life: Life, work: Callable[[], Awaitable[None]]) -> int:
    begin = time.monotonic()
    await work()
    end = time.monotonic()
    await life.traffic.settle()
    lost = {wire: life.traffic.lost(wire, begin, end)[0] for wire in life.wires}
    for wire, number in lost.items():
        if number:
            print(f"{' '.join(wire)} lost {number}", file=sys.stderr)
    return sum(lost.values())


FIGURES = {each.__name__: each for each in (heal_endpoint, heal_ping, heal_100, cut_noticed, restart_loss)}


def measure() -> list[Figure]:
    """All of them."""
    return [figure for each in FIGURES.values() for figure in asyncio.run(each())]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or FIGURES:
        for figure, value, unit in asyncio.run(FIGURES[chosen]()):
            print(f"{figure:<28} {value:.3f} {unit}", flush=True)
