"""Measures everything that is promised, in one run: a table here, and bench/results.json.

    make bench
    python -m bench --against PATH

The second compares what must not become slower with another checkout, which has a .venv of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import (
    against,
    channels,
    codec,
    composition,
    domains,
    hostile,
    joined,
    life,
    nodes,
    operate,
    policies,
    probes,
    registry,
    start,
    streams,
    throughput,
    vl3,
    vpp,
    webhook,
)
from bench import mesh as five_nodes
from bench.running import in_workload, load, mesh
from bench.start import resident_mib
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

RESULTS = Path(__file__).parent / "results.json"
TOPOLOGY = """
nodes: [{name: node-1}]
endpoints:
  - {name: endpoint, node: node-1, services: [icmp-responder], payload: IP, prefixes: [10.0.0.0/12]}
clients:
  - {name: client, node: node-1, wires: ["kernel://icmp-responder/nsm-1"]}
"""
MARKS = {
    "local_setup": "12 ms",
    "local_kernel": "2 ms",
    "local_refresh": "8 ms",
    "local_close": "30 ms",
    "setup_200_by_20": "p99 400 ms",
    "setup_200_total_s": "2 s",
    "setup_1000_by_100": "p99 2000 ms",
    "setup_1000_total_s": "10 s",
    "cpu_per_1000_s": "15 s",
    "register_10k_per_s": "500 /s",
    "find_10k": "2 ms",
    "find_10k_service": "6 ms",
    "watch_100_ms": "100 ms",
    "watch_100_mib": "",
    "sqlite_register_per_s": "1000 /s",
    "etcd_register_per_s": "400 /s",
    "wire_throughput_ratio": "0.98",
    "webhook_100_per_s": "p99 20 ms",
    "channel_kib": "64 KiB, or 1.5 bare ones",
    "bare_channel_kib": "",
    "channels_left_mib": "5 MiB",
    "setup_1000_channels_s": "8 s",
    "codec_ratio": "5",
    "start_s": "1 s",
    "nsc_connect_s": "1 s",
    "rss_start_mib": "60 MiB",
    "rss_peak_mib": "120 MiB",
    "log_lines_per_call": "4",
    "log_bytes_per_call": "1000",
    "vxlan_setup": "22 ms",
    "wireguard_setup": "40 ms",
    "wireguard_setup_cold": "110 ms",
    "vxlan_throughput_ratio": "0.97",
    "vpp_setup": "20 ms",
    "vpp_vxlan_setup": "35 ms",
    "vpp_throughput_ratio": "0.97",
    "vpp_rebuild_s": "3 s",
    "interdomain_setup": "45 ms",
    "floating_setup": "45 ms",
    "find_interdomain": "4 ms",
    "vl3_setup": "25 ms",
    "vl3_heal_s": "2 s",
    "vl3_60_pairs_s": "25 s",
    "vl3_dns_ms": "3 ms",
    "lb_throughput_ratio": "0.9",
    "node_process_mib": "70 MiB",
    "chain_5_setup": "60 ms",
    "measure_ratio": "0.9",
    "attach_s": "1 s",
    "growth_500": "1.25",
    "mesh_5x10_s": "10 s",
    "pss_mesh_gib": "1.5 GiB",
    "leak_500": "0",
    "leak_500_rss_mib": "5 MiB",
    "heal_endpoint_s": "0.4 s",
    "heal_endpoint_p99_s": "1.0 s",
    "heal_endpoint_far_s": "0.4 s",
    "heal_endpoint_far_p99_s": "1.0 s",
    "heal_ping_s": "1.6 s",
    "heal_100_s": "3 s",
    "cut_noticed_s": "0.1 s",
    "cut_down_s": "0.4 s",
    "restart_loss": "0",
    "restart_loss_without_kills": "0",
    "streams_1000": "4",
    "churn_20k_left": "0",
    "churn_20k_rss_mib": "10 MiB",
    "view_10k_mib": "200 MiB",
    "view_lag_ms": "200 ms",
    "view_10k_snapshot_s": "",
    "policy_ms": "0.3 ms",
    "wires_ms": "300 ms",
    "why_ms": "300 ms",
    "can_ms": "",
    "bystander_ratio": "5, or p99 100 ms",
    "bystander_p99": "",
    "hostile_rss_mib": "32 MiB",
}
_TICKS = os.sysconf("SC_CLK_TCK")


class Bench:
    """Collects figures, and shows each as it comes."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}

    def note(self, name: str, values: Sequence[float] | float, unit: str = "ms") -> None:
        """One figure, out of one or many values."""
        samples = [values] if isinstance(values, int | float) else sorted(values)
        median = statistics.median(samples)
        p99 = samples[min(len(samples) - 1, int(len(samples) * 0.99))]
        self.results[name] = {"median": round(median, 4), "p99": round(p99, 4), "n": len(samples), "unit": unit}
        print(f"{name:<24}{median:>12.3f}{p99:>12.3f}{len(samples):>8}  {unit:<6} {MARKS.get(name, '')}", flush=True)


def serving_pids(run: RunDir) -> list[int]:
    """The pids of the components that serve connections and registrations."""
    status = ask(run, {"command": "status"})["components"]
    return [component["pid"] for component in status if component["command"] not in {"identity", "nsc"}]


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of some processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def logged(run: RunDir) -> tuple[int, int]:
    """Lines and bytes of all logs."""
    texts = [path.read_bytes() for path in (run.path / "log").iterdir()]
    return sum(text.count(b"\n") for text in texts), sum(map(len, texts))


def kernel_ms(run: RunDir, last: int) -> list[float]:
    """What the forwarder logged of the kernel's part of its last wires."""
    lines = run.log_of("forwarder-node-1").read_text().splitlines()
    made = [json.loads(line)["ms"] for line in lines if '"wire made"' in line]
    return [float(ms) for ms in made[-last:]]


def starts(bench: Bench) -> None:
    """From the start of a process until it serves, or has its wire; memory then."""
    taken = start.measure()
    serving = [each for each in taken if each.name != "client"]
    bench.note("start_s", max(each.seconds for each in serving), "s")
    bench.note("nsc_connect_s", next(each.seconds for each in taken if each.name == "client"), "s")
    bench.note("rss_start_mib", max(each.memory_mib for each in taken), "MiB")


def connections(bench: Bench) -> None:
    """Set-up, refresh and close, one by one and many at once; CPU, memory, logs."""
    with mesh("bench", TOPOLOGY) as run:
        serving = serving_pids(run)
        load(run, "-n", "50", "--cycle", "--refresh")
        before, logs_before = cpu_seconds(serving), logged(run)
        result = load(run, "-n", "400", "--cycle", "--refresh", "--first-packet")
        after, logs_after = cpu_seconds(serving), logged(run)
        bench.note("local_setup", result["setup"])
        bench.note("local_kernel", kernel_ms(run, 400))
        bench.note("local_refresh", result["refresh"])
        bench.note("local_close", result["close"])
        bench.note("cpu_per_1000_s", (after - before) / 1.2, "s")
        bench.note("log_lines_per_call", (logs_after[0] - logs_before[0]) / 1200, "")
        bench.note("log_bytes_per_call", (logs_after[1] - logs_before[1]) / 1200, "B")
        result = load(run, "-n", "200", "-c", "20", "--first-packet")
        bench.note("setup_200_by_20", result["setup"])
        bench.note("setup_200_total_s", result["setup_total_s"], "s")
        result = load(run, "-n", "1000", "-c", "100")
        bench.note("setup_1000_by_100", result["setup"])
        bench.note("setup_1000_total_s", result["setup_total_s"], "s")
        bench.note("rss_peak_mib", max(resident_mib(pid, "VmHWM") for pid in serving), "MiB")
        ratios = throughput.measure(run, throughput.veth)
        bench.note("wire_throughput_ratio", ratios.wire, "")
        bench.note("bare_throughput_ratio", ratios.control, "")


def growth(bench: Bench) -> None:
    """Set-up with 500 other wires on the node against that with ten, in turn."""
    with mesh("bench-grow", TOPOLOGY) as run:
        load(run, "-n", "50", "--cycle")
        ratios = []
        for _ in range(5):
            few, many = (load(run, "-n", "100", "--cycle", "--beside", str(count)) for count in (10, 500))
            ratios.append(statistics.median(many["setup"]) / statistics.median(few["setup"]))
        bench.note("growth_500", ratios, "")


def several_nodes(bench: Bench) -> None:
    """Wires between two nodes, between domains, through a chain, in a vL3; five nodes with fifty clients."""
    through_vpp = vpp.measure() if vpp.is_possible() else []
    for name, values, unit in [*nodes.measure(), *domains.measure(), *vl3.measure(), *through_vpp]:
        bench.note(name, values, unit)
    bench.note("node_process_mib", joined.measure(), "MiB")
    for name, values, unit in [*composition.measure(), *probes.measure()]:
        bench.note(name, values, unit)
    figures = five_nodes.measure()
    bench.note("mesh_5x10_s", figures.mesh_5x10_s, "s")
    bench.note("pss_mesh_gib", figures.pss_mesh_gib, "GiB")


def leak(bench: Bench) -> None:
    """500 connections come and go: nothing may stay, inside the components or out."""
    inside = int(subprocess.run([sys.executable, "-m", "bench.leaks"], capture_output=True, check=True).stdout)
    with mesh("bench-leak", TOPOLOGY) as run:
        serving = serving_pids(run)
        load(run, "-n", "100", "-c", "5", "--cycle")
        before = sum(map(descriptors, serving)) + links(run), [resident_mib(pid) for pid in serving]
        load(run, "-n", "500", "-c", "5", "--cycle")
        after = sum(map(descriptors, serving)) + links(run), [resident_mib(pid) for pid in serving]
        bench.note("leak_500", max(0, after[0] - before[0]) + inside, "")
        grown = max(now - then for now, then in zip(after[1], before[1], strict=True))
        bench.note("leak_500_rss_mib", grown, "MiB")
    left, grown = json.loads(
        subprocess.run([sys.executable, "-m", "bench.churn"], capture_output=True, check=True).stdout
    )
    bench.note("streams_1000", asyncio.run(streams.measure()), "")
    bench.note("churn_20k_left", left, "")
    bench.note("churn_20k_rss_mib", grown, "MiB")


def links(run: RunDir) -> int:
    """Network interfaces in the endpoint's namespace."""
    return len(in_workload(run, "endpoint", "cat", "/proc/net/dev").splitlines()) - 2


def main() -> int:
    """Run all of it, or compare."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout")
    parser.add_argument("--runs", type=int, default=against.RUNS, help="how often each of the two is measured")
    parsed = parser.parse_args()
    return against.compare(parsed.against, parsed.runs) if parsed.against else everything()


def everything() -> int:
    """Each figure once."""
    bench = Bench()
    print(f"{'':<24}{'median':>12}{'p99':>12}{'n':>8}  {'unit':<6} mark")
    starts(bench)
    connections(bench)
    growth(bench)
    several_nodes(bench)
    leak(bench)
    for measure in (registry.measure, registry.rates, webhook.measure):
        for name, values, unit in asyncio.run(measure()):
            bench.note(name, values, unit)
    for name, value, unit in [*life.measure(), *channels.measure()]:
        bench.note(name, value, unit)
    for name, values, unit in [*policies.measure(), *operate.measure()]:
        bench.note(name, values, unit)
    for name, value, unit in hostile.measure():
        bench.note(name, value, unit)
    bench.note("codec_ratio", codec.ratio(), "")
    RESULTS.write_text(json.dumps(bench.results, indent=2) + "\n")
    print(f"written to {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
