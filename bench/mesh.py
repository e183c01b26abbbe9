"""Five nodes with fifty clients, as the examples have it: how long from nothing, and how much memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsm.mesh import namespaces
from nsm.mesh.control import ask
from nsm.mesh.enter import down
from nsm.mesh.launch import up
from nsm.mesh.rundir import RunDir
from nsm.mesh.topology import read

FILE = Path(__file__).parents[1] / "examples" / "five-nodes.yaml"
CLIENTS = 50
_ECHO_REQUEST = 8
_PATIENCE = 2.0


@dataclass(frozen=True)
class Figures:
    """Seconds from nothing until every ping is answered; proportional memory of all processes, in GiB."""

    mesh_5x10_s: float
    pss_mesh_gib: float


def measure(name: str = "bench-five") -> Figures:
    """Bring the mesh up, ping over each of its wires, weigh it, and take it down. Raises RuntimeError."""
    run, said = RunDir.of(name), list[Mapping[str, Any]]()
    begin = time.perf_counter()
    try:
        up(run, read(str(FILE)), said.append, timeout=120)
        status = ask(run, {"command": "status"})
        lost = _unanswered(run, status["wires"])
        seconds = time.perf_counter() - begin
        if lost or len(status["wires"]) != CLIENTS:
            raise RuntimeError(f"{len(status['wires'])} wires, without an answer: {lost}")
        return Figures(seconds, _memory(status) / 2**20)
    finally:
        if run.is_held():
            down(run)


def _unanswered(run: RunDir, wires: Sequence[Mapping[str, Any]]) -> list[str]:
    """The clients that get no answer to a ping to the other end of their wire; all ask at the same time."""

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(_is_answered(run, wire) for wire in wires))

    answers = asyncio.run(all_of_them())
    return [wire["client"] for wire, answered in zip(wires, answers, strict=True) if not answered]


async def _is_answered(run: RunDir, wire: Mapping[str, Any]) -> bool:
    place = ask(run, {"command": "place", "workload": wire["client"]})
    path = f"/proc/{place['supervisor']}/fd/{place['network']}"
    target = wire["dst_ips"][0].partition("/")[0]
    with namespaces.in_thread(lambda: _socket_in(path)) as sock:
        sock.sendto(struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, 0, 1) + b"five by ten", (target, 0))
        try:
            async with asyncio.timeout(_PATIENCE):
                return (await asyncio.get_running_loop().sock_recv(sock, 1024)).endswith(b"five by ten")
        except TimeoutError:
            return False


def _socket_in(path: str) -> socket.socket:
    """A socket for pings in the network namespace at `path`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.enter(descriptor, namespaces.NEW_NET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    finally:
        os.close(descriptor)
    sock.setblocking(False)
    return sock


def _memory(status: Mapping[str, Any]) -> int:
    """KiB of all processes of a mesh, what they share counted once: all in its namespaces, and the two that own it."""
    pids = [component["pid"] for component in status["components"]]
    networks = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in pids}
    zygote = _parent(pids[0])
    return sum(map(_pss, {*namespaces.inhabitants(networks), zygote, _parent(zygote)}))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
