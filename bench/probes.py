"""What `nsm measure` finds, beside iperf3 over the same wire in turn; how long `nsm attach` takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.running import in_workload, mesh
from bench.throughput import gigabits
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

ROUNDS, ATTACHED = 6, 10
TOPOLOGY = """
nodes: [{name: node-1}]
endpoints:
  - {name: endpoint, node: node-1, services: [icmp-responder], prefixes: [10.0.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://icmp-responder/nsm-1"]}
"""
Figure = tuple[str, list[float], str]


def measure() -> list[Figure]:
    """`measure_ratio`: what the command reports in parts of iperf3's throughput; `attach_s`: from start to wire."""
    with mesh("bench-probes", TOPOLOGY) as run:
        return [("measure_ratio", _ratios(run), ""), ("attach_s", _attached(run), "s")]


def _ratios(run: RunDir) -> list[float]:
    wire = ask(run, {"command": "status"})["wires"][0]
    here, there = (wire[key][0].partition("/")[0] for key in ("src_ips", "dst_ips"))
    serve = [sys.executable, "-m", "nsm.chains", "mesh", "exec", "--name", run.name, "endpoint", "--", "iperf3", "-s"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _until_served(run, here, there)
            return [_ratio(run, here, there) for _ in range(ROUNDS)]
        finally:
            in_workload(run, "endpoint", "sh", "-c", "kill $(pidof iperf3)")
            server.wait()


def _until_served(run: RunDir, here: str, there: str) -> None:
    for _ in range(100):
        try:
            gigabits(run, here, there)
        except (subprocess.CalledProcessError, KeyError):
            time.sleep(0.05)
        else:
            return


def _ratio(run: RunDir, here: str, there: str) -> float:
    before = gigabits(run, here, there)
    found = json.loads(_nsm(run, "measure", "client/nsm-1", "--seconds", "1", "--json"))
    ours = float(found["directions"][0]["bits_per_s"]) / 1e9
    return ours / statistics.mean((before, gigabits(run, here, there)))


def _attached(run: RunDir) -> list[float]:
    """Of all but the first, which starts the agent."""
    taken = []
    for _ in range(ATTACHED + 1):
        with _workload() as process:
            began = time.monotonic()
            _nsm(run, "attach", "--pid", str(process.pid), "--as", "bench", "kernel://icmp-responder/nsm-1")
            taken.append(time.monotonic() - began)
            _nsm(run, "detach", "bench")
    return taken[1:]


@contextmanager
def _workload() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network namespace of its own, like that of a container."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _nsm(run: RunDir, command: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nsm.chains", command, "--name", run.name, *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout
