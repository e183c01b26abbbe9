"""Wires between two nodes: how soon they are there, and what they carry."""

from __future__ import annotations

from bench import throughput
from bench.running import load, mesh

_TOPOLOGY = """
nodes: [{name: node-1}, {name: node-2}]
links: [{nodes: [node-1, node-2], network: 172.16.1.0/24, mtu: 1500}]
endpoints:
  - {name: endpoint, node: node-2, services: [frames], payload: ETHERNET, prefixes: [10.0.0.0/16]}
  - {name: other, node: node-2, services: [packets], payload: IP, prefixes: [10.1.0.0/16]}
clients:
  - {name: client, node: node-1, wires: ["kernel://frames/nsm-1"]}
"""
_WIRES, _WARM, _PAUSE = 60, 5, "0.3"


def measure() -> list[tuple[str, list[float], str]]:
    """Set-up over VXLAN and WireGuard, with and without a rest between wires; throughput against a VXLAN by hand.

    No process is kept ready for WireGuard, so "cold" is a mesh that has made no such wire, one wire after the other.
    """
    figures: list[tuple[str, list[float], str]] = []
    with mesh("bench-two", _TOPOLOGY) as run:
        load(run, "-n", str(_WARM), "--cycle", service="frames")
        result = load(run, "-n", "200", "--cycle", "--first-packet", service="frames")
        figures.append(("vxlan_setup", result["setup"], "ms"))
        result = load(run, "-n", str(_WIRES), "--cycle", "--first-packet", "--pause", _PAUSE, service="packets")
        figures.append(("wireguard_setup", result["setup"], "ms"))
        ratios = throughput.measure(run, throughput.vxlan)
        figures += [("vxlan_throughput_ratio", ratios.wire, ""), ("bare_vxlan_ratio", ratios.control, "")]
    with mesh("bench-cold", _TOPOLOGY) as run:
        result = load(run, "-n", str(_WIRES), "--cycle", "--first-packet", service="packets")
        figures.append(("wireguard_setup_cold", result["setup"], "ms"))
    return figures
