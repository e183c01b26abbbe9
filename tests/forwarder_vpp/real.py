"""A real VPP, started for a test or to record a transcript."""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from nsm.forwarder_vpp.api import VPP, Unreachable

MISSING = (
    "there is no program `vpp` on the PATH: install VPP 24.10 or newer from the package repository of FD.io "
    "(the packages vpp, vpp-plugin-core and vpp-crypto-engines)"
)
_START = 60
"""Seconds that VPP may take to answer."""


def configuration(folder):
    """What VPP is started with: no hugepages, no cards, sockets in a folder."""
    return f"""
unix {{ nodaemon cli-listen {folder}/cli.sock runtime-dir {folder} }}
socksvr {{ socket-name {folder}/api.sock }}
statseg {{ socket-name {folder}/stats.sock size 32M }}
memory {{ main-heap-size 256M main-heap-page-size 4k }}
buffers {{ buffers-per-numa 16384 page-size 4k }}
api-segment {{ prefix {Path(folder).name} }}
plugins {{ plugin dpdk_plugin.so {{ disable }} }}
"""


@dataclass
class RealVPP:
    """A running VPP in a network namespace of its own, which has pairs of interfaces for it."""

    process: asyncio.subprocess.Process
    api: str
    stats: str

    async def connect(self, kind=VPP):
        """A connection, as soon as VPP answers."""
        async with asyncio.timeout(_START):
            while True:
                try:
                    return await kind.connect(self.api)
                except Unreachable:
                    assert self.process.returncode is None, f"vpp ended with {self.process.returncode}"
                    await asyncio.sleep(0.1)

    async def run(self, *command):
        """Run a program in VPP's network namespace; what it prints."""
        entered = ["nsenter", f"--target={self.process.pid}", "--net", *command]
        done = await asyncio.create_subprocess_exec(*entered, stdout=asyncio.subprocess.PIPE)
        out, _ = await done.communicate()
        assert done.returncode == 0, out
        return out.decode()


@contextlib.asynccontextmanager
async def real_vpp(folder, *, links=(), program="vpp"):
    """Start VPP between pairs of interfaces: each of `links` has a peer ``<name>p`` that is up."""
    found = shutil.which(program)
    assert found, MISSING
    (Path(folder) / "startup.conf").write_text(configuration(folder))
    pairs = [f"ip link add {link} type veth peer {link}p && ip link set {link}p up" for link in links]
    script = " && ".join(["ip link set lo up", *pairs, f"exec {found} -c {folder}/startup.conf"])
    process = await asyncio.create_subprocess_exec("unshare", "--net", "sh", "-c", script)
    try:
        yield RealVPP(process, f"{folder}/api.sock", f"{folder}/stats.sock")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
