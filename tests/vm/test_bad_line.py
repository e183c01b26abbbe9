"""Wires between nodes that are joined by a bad line: it takes 50 ms and loses 5 %, each way."""

import re
import time

from tests.vm.guest.mesh import Mesh

SECONDS = 240
REQUEST_SECONDS, TOKEN_SECONDS = 30, 30
"""Twice the usual deadline, for a processor that is thirty times slower; and how long a wire lives unless refreshed."""

KINDS = {"frames": "vxlan", "packets": "wireguard"}
"""What carries each service between nodes; the interface is called as its service."""

NODES = f"""\
nodes:
  - name: node-1
    manager: &short {{environment: {{NSM_MAX_TOKEN_LIFETIME: {TOKEN_SECONDS}s}}}}
    forwarder: *short
  - {{name: node-2, manager: *short, forwarder: *short}}
links:
  - {{nodes: [node-1, node-2], network: 172.16.1.0/24}}
services:
  - {{name: frames, payload: ETHERNET}}
  - {{name: packets, payload: IP}}
endpoints:
  - {{name: vxlan, node: node-1, services: [frames], prefixes: [10.0.0.0/24]}}
  - {{name: wireguard, node: node-1, services: [packets], prefixes: [10.0.1.0/24]}}
"""
CLIENT = f"""\
clients:
  - name: client
    node: node-2
    wires: [kernel://frames/frames, kernel://packets/packets]
    environment: {{NSM_MAX_TOKEN_LIFETIME: {TOKEN_SECONDS}s, NSM_REQUEST_TIMEOUT: {REQUEST_SECONDS}s}}
"""


def test_wires_are_made_in_time_and_kept_over_a_bad_line():
    mesh = Mesh()
    mesh.up(NODES)
    for node in ("node-1", "node-2"):
        mesh.run(f"nsmgr-{node}", "tc qdisc add dev eth0 root netem delay 50ms loss 5%")
    mesh.up(NODES + CLIENT)
    begin = time.monotonic()
    wires = mesh.told("client", "wire up")
    assert {wire["service"]: float(wire["ms"]) < REQUEST_SECONDS * 1000 for wire in wires} == dict.fromkeys(KINDS, True)
    links = mesh.links("client")
    assert {name: links[name]["linkinfo"]["info_kind"] for name in KINDS} == KINDS
    comes_and_goes(mesh)
    time.sleep(max(0, begin + TOKEN_SECONDS + 2 - time.monotonic()))  # without a refresh the wires' time is over
    assert mesh.links("client") == links
    comes_and_goes(mesh)


def comes_and_goes(mesh):
    """Ping as the line allows: one in ten is lost, the others take both ways' delay."""
    for address in ("10.0.0.0", "10.0.1.0"):
        said = mesh.run("client", f"ping -n -c 20 -i 0.2 {address}")
        assert int(re.search(r"(\d+) received", said)[1]) >= 10
        assert float(re.search(r"rtt min/avg/max/mdev = ([\d.]+)", said)[1]) >= 100
