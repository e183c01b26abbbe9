"""Wires between two nodes: how soon they are there, and what they carry."""

from __future__ import annotations

from bench import throughput
from bench.running import load, mesh

_FORWARDER = '{environment: {NSM_WIREGUARD_SPARES: "%d"}}'
_TOPOLOGY = """
nodes:
  - {name: node-1, forwarder: FORWARDER}
  - {name: node-2, forwarder: FORWARDER}
links: [{nodes: [node-1, node-2], network: 172.16.1.0/24, mtu: 1500}]
endpoints:
  - {name: endpoint, node: node-2, services: [frames], payload: ETHERNET, prefixes: [10.0.0.0/16]}
  - {name: other, node: node-2, services: [packets], payload: IP, prefixes: [10.1.0.0/16]}
clients:
  - {name: client, node: node-1, wires: ["kernel://frames/nsm-1"]}
"""
_WIRES, _WARM, _PAUSE = 60, 5, "0.3"


def measure() -> list[tuple[str, list[float], str]]:
    """Set-up over VXLAN and WireGuard, warm and cold; throughput over VXLAN against one by hand."""
    figures: list[tuple[str, list[float], str]] = []
    with mesh("bench-two", _topology(spares=2)) as run:
        load(run, "-n", str(_WARM), "--cycle", service="frames")
        result = load(run, "-n", "200", "--cycle", "--first-packet", service="frames")
        figures.append(("vxlan_setup", result["setup"], "ms"))
        result = load(run, "-n", str(_WIRES), "--cycle", "--first-packet", "--pause", _PAUSE, service="packets")
        figures.append(("wireguard_setup", result["setup"], "ms"))
        ratios = throughput.measure(run, throughput.vxlan)
        figures += [("vxlan_throughput_ratio", ratios.wire, ""), ("bare_vxlan_ratio", ratios.control, "")]
    with mesh("bench-cold", _topology(spares=0)) as run:
        result = load(run, "-n", str(_WIRES), "--cycle", "--first-packet", service="packets")
        figures.append(("wireguard_setup_cold", result["setup"], "ms"))
    return figures


def _topology(*, spares: int) -> str:
    return _TOPOLOGY.replace("FORWARDER", _FORWARDER % spares)
