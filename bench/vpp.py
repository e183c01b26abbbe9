"""Wires through VPP: how soon they are there, what they carry, and how long a VPP that was killed is missed.

    python -m bench.vpp

VPP has to be installed, as docs/vpp.md describes; the figures of a debug build say little.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import throughput
from bench.running import in_workload, load, mesh, pids
from nsm.forwarder_vpp.api import VPP
from nsm.forwarder_vpp.ports import make_host
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir

_LINK = "links: [{nodes: [node-1, node-2], network: 172.16.1.0/24, mtu: 1500}]"
_LOCAL = """
nodes: [{{name: node-1, forwarder: vpp}}]
endpoints:
  - {{name: endpoint, node: node-1, services: [icmp-responder], payload: IP, prefixes: [10.0.0.0/12]}}
clients:
  - {{name: client, node: node-1, wires: [{wires}]}}
"""
_REMOTE = f"""
nodes: [{{name: node-1, forwarder: vpp}}, {{name: node-2, forwarder: vpp}}]
{_LINK}
endpoints:
  - {{name: endpoint, node: node-2, services: [frames], payload: ETHERNET, prefixes: [10.0.0.0/16]}}
clients:
  - {{name: client, node: node-1, wires: ["kernel://frames/nsm-1"]}}
"""
_WARM, _SETUPS, _REBUILT, _LIMIT = 10, 60, 100, 60
_ANSWER = """
import asyncio, ipaddress, sys, time
from nsm.chains.elements.ping import answers

async def wait(source, target):
    while not await answers(*map(ipaddress.ip_address, (source, target)), "", 0.4):
        await asyncio.sleep(0.02)

async def main():
    pairs = [each.split(",") for each in sys.argv[1:]]
    await asyncio.gather(*(wait(*each) for each in pairs))
    print(time.time())

asyncio.run(main())
"""


def measure() -> list[tuple[str, Sequence[float], str]]:
    """The figures, with their units."""
    figures: list[tuple[str, Sequence[float], str]] = []
    with mesh("bench-vpp", _LOCAL.format(wires='"kernel://icmp-responder/nsm-1"')) as run:
        load(run, "-n", str(_WARM), "--cycle")
        result = load(run, "-n", str(_SETUPS), "--cycle", "--first-packet")
        figures.append(("vpp_setup", result["setup"], "ms"))
        ratios = throughput.measure(run, _by_hand)
        figures.append(("vpp_throughput_ratio", ratios.wire, ""))
    with mesh("bench-vpp-two", _REMOTE) as run:
        load(run, "-n", str(_WARM), "--cycle", service="frames")
        result = load(run, "-n", str(_SETUPS), "--cycle", "--first-packet", service="frames")
        figures.append(("vpp_vxlan_setup", result["setup"], "ms"))
    figures.append(("vpp_rebuild_s", [_rebuild()], "s"))
    return figures


def _rebuild() -> float:
    """Seconds from the end of a VPP until packets pass on all wires again."""
    wires = ", ".join(f'"kernel://icmp-responder/nsm-{number}"' for number in range(_REBUILT))
    with mesh("bench-vpp-rebuild", _LOCAL.format(wires=wires)) as run:
        pairs = [_pair(each) for each in ask(run, {"command": "status"})["wires"]]
        assert len(pairs) == _REBUILT
        begun = time.time()
        os.kill(_pid(run), signal.SIGKILL)
        return float(in_workload(run, "client", sys.executable, "-c", _ANSWER, *pairs)) - begun


def _pair(wire: dict[str, list[str]]) -> str:
    return ",".join(wire[key][0].partition("/")[0] for key in ("src_ips", "dst_ips"))


def _pid(run: RunDir) -> int:
    (file,) = run.temporary.glob("forwarder-*/pid")
    return int(file.read_text())


@contextmanager
def _by_hand(run: RunDir) -> Iterator[None]:
    """The same in the same VPP: two pairs, interfaces with the settings of wires, and a cross-connect of frames."""
    (socket,) = run.temporary.glob("forwarder-*/api.sock")
    places = pids(run)
    with throughput.named({f"bench-{key}": places[name] for key, name in _PLACES.items()}):
        for end in ("here", "there"):
            throughput.ip(f"-n bench-{end} link add hand0 type veth peer name hand-{end} netns bench-node")
            throughput.ip(f"-n bench-node link set hand-{end} mtu 9216 up")
        asyncio.run(_cross_connect(str(socket)))
        try:
            yield from throughput.with_addresses()
        finally:
            asyncio.run(_delete(str(socket)))


_PLACES = {"here": "client", "there": "endpoint", "node": "forwarder-node-1"}
_HOSTS = {"hand-here": "02:00:00:00:77:01", "hand-there": "02:00:00:00:77:02"}


async def _cross_connect(socket: str) -> None:
    async with await VPP.connect(socket) as vpp:
        one, other = [await make_host(vpp, name, mac, has_offload=True) for name, mac in _HOSTS.items()]
        for source, target in ((one, other), (other, one)):
            await vpp.call("sw_interface_set_flags", sw_if_index=source, flags=["IF_STATUS_API_FLAG_ADMIN_UP"])
            both = {"rx_sw_if_index": source, "tx_sw_if_index": target}
            await vpp.call("sw_interface_set_l2_xconnect", enable=True, **both)


async def _delete(socket: str) -> None:
    async with await VPP.connect(socket) as vpp:
        for name in _HOSTS:
            await vpp.call("af_packet_delete", host_if_name=name)


def is_possible() -> bool:
    """Whether VPP is installed; prints that it is not."""
    if shutil.which("vpp"):
        return True
    print("the figures of VPP need VPP: docs/vpp.md describes how to install it")
    return False


if __name__ == "__main__":
    for name, values, unit in measure() if is_possible() else ():
        print(f"{name:<24}{statistics.median(values):>12.3f} {unit:<4} n={len(values)}", flush=True)
