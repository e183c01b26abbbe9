"""TCP over a wire against the same made by hand between the same namespaces, in alternating rounds."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.running import NSM, in_workload, pids
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

HERE, THERE = "192.0.2.1", "192.0.2.2"
"""The ends of what is made by hand (RFC 5737)."""


@dataclass(frozen=True)
class Ratios:
    """Throughput of the wire over that by hand, and of the second by hand over the first: the control."""

    wire: list[float]
    control: list[float]


def measure(run: RunDir, by_hand: Callable[[RunDir], AbstractContextManager[None]], rounds: int = 10) -> Ratios:
    """iperf3 from client to endpoint over the client's wire and by hand, in turn."""
    wire = ask(run, {"command": "status"})["wires"][0]
    here, there = (wire[key][0].partition("/")[0] for key in ("src_ips", "dst_ips"))
    serve = [*NSM, "mesh", "exec", "--name", run.name, "endpoint", "--", "iperf3", "-s"]
    ratios = Ratios([], [])
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            with by_hand(run):
                time.sleep(0.5)
                for _ in range(rounds):
                    bare, wired, again = (
                        gigabits(run, *ends) for ends in ((HERE, THERE), (here, there), (HERE, THERE))
                    )
                    ratios.wire.append(wired / statistics.mean((bare, again)))
                    ratios.control.append(again / bare)
        finally:
            in_workload(run, "endpoint", "sh", "-c", "kill $(pidof iperf3)")
            server.wait()
    return ratios


@contextmanager
def veth(run: RunDir) -> Iterator[None]:
    """A veth pair."""
    with named({"bench-here": pids(run)["client"], "bench-there": pids(run)["endpoint"]}):
        ip("link add hand0 netns bench-here type veth peer name hand0 netns bench-there")
        yield from with_addresses()


@contextmanager
def vxlan(run: RunDir) -> Iterator[None]:
    """A VXLAN between the nodes `node-1` and `node-2`, its devices in the namespaces of client and endpoint."""
    places = pids(run)
    nodes = {"bench-one": places["nsmgr-node-1"], "bench-two": places["nsmgr-node-2"]}
    with named({**nodes, "bench-here": places["client"], "bench-there": places["endpoint"]}):
        common = "type vxlan id 77 dstport 4790 nolearning"
        ip(f"-n bench-one link add hand0 netns bench-here {common} local 172.16.1.1 remote 172.16.1.2")
        ip(f"-n bench-two link add hand0 netns bench-there {common} local 172.16.1.2 remote 172.16.1.1")
        for end in ("here", "there"):
            ip(f"-n bench-{end} link set hand0 mtu 1450")
        yield from with_addresses()


def with_addresses() -> Iterator[None]:
    """Addresses for what was made by hand, which is removed at the end."""
    for end, address in (("here", HERE), ("there", THERE)):
        ip(f"-n bench-{end} address add {address}/24 dev hand0")
        ip(f"-n bench-{end} link set hand0 up")
    try:
        yield
    finally:
        ip("-n bench-here link delete hand0")


@contextmanager
def named(places: Mapping[str, int]) -> Iterator[None]:
    """Names for `ip`: of the network namespaces in which some processes are."""
    folder = Path("/run/netns")
    folder.mkdir(exist_ok=True)
    try:
        for name, pid in places.items():
            (folder / name).touch()
            subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/net", folder / name], check=True)
        yield
    finally:
        for name in places:
            subprocess.run(["umount", folder / name], check=False)
            (folder / name).unlink(missing_ok=True)


def ip(words: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *words.split()], check=True)


def gigabits(run: RunDir, source: str, target: str) -> float:
    """TCP throughput of one second."""
    text = in_workload(run, "client", "iperf3", "-c", target, "-B", source, "-t", "1", "-J")
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e9
