"""Nodes with a VPP, and workloads with a VPP of their own: the real one, or the stand-in, which passes no packets.

It is the real one if NSM_TEST_VPP is set, as `make test-vpp` does.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from nsm.forwarder_vpp.api import VPP
from nsm.forwarder_vpp.certificates import NodeKey
from nsm.forwarder_vpp.dataplane import Dataplane
from nsm.forwarder_vpp.grace import SETTING, GracePeriods
from nsm.forwarder_vpp.names import Names
from nsm.forwarder_vpp.process import ExternalVPP, OwnVPP, Size
from nsm.forwarder_vpp.session import Session
from nsm.forwarder_vpp.uplinks import Uplinks
from nsm.mesh import namespaces

IS_REAL = bool(os.environ.get("NSM_TEST_VPP"))
HOW = "VPP is not installed: docs/vpp.md tells how to install FD.io's packages vpp, vpp-plugin-core, vpp-crypto-engines"
SMALL = Size(heap="192M", buffers=8192)
SIZE = 1 << 20
ROOT = Path(__file__).parents[3]


def program(folder, host):
    """A program that is VPP in the network namespace of `host`."""
    if IS_REAL:
        found = shutil.which("vpp")
        assert found, HOW
        command = found
    else:
        command = f"{sys.executable} -m tests.forwarder_vpp.standin"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "vpp"
    script.write_text(f'#!/bin/sh\ncd {ROOT}\nexec nsenter --net={host.path} {command} "$@"\n')
    script.chmod(0o755)
    return str(script)


class Process(OwnVPP):
    """VPP of a test, which ends with it."""

    def __init__(self, folder, host):
        super().__init__(folder, SMALL, program(folder, host))

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        """As ``kill -9`` does."""
        self._process.kill()
        self._process.wait()


class Forwarder:
    """A forwarder's dataplane in a node; `restart` is another process of it, which knows nothing."""

    def __init__(self, process, folder, host, owner, address, devices, options, timeout=2.0):
        setting = SETTING if IS_REAL else folder / "rcu_expedited"
        self.process, self.host, self.folder = process, host, folder
        self.session = Session(process, timeout=timeout, grace=GracePeriods(folder / "expedited", setting))
        self.uplinks = Uplinks(Names(owner), address, devices)
        self.key = NodeKey(folder / "ikev2.pem") if address is not None else None
        self.plane = Dataplane(owner, self.session, self.uplinks, self.key, **options)
        self.plane.kernel._executor.submit(namespaces.enter, host.descriptor, namespaces.NEW_NET).result()
        self._again = owner, address, devices, options

    async def __aenter__(self):
        try:
            await self.session.__aenter__()
        except BaseException:
            await self.plane.aclose()
            raise
        return self

    async def __aexit__(self, *error):
        await self.session.__aexit__(*error)
        await self.plane.aclose()

    def successor(self):
        """Another process."""
        return Forwarder(self.process, self.folder, self.host, *self._again)

    async def interfaces(self):
        """The names of VPP's interfaces, without its own local0."""
        vpp = await self.session.vpp()
        return {each.interface_name for each in await vpp.dump("sw_interface_dump")} - {"local0"}


@asynccontextmanager
async def forwarder_in(host, folder, owner="forwarder", address=None, devices=(), **options):
    """A forwarder and its VPP in a node."""
    process = Process(folder, host)
    try:
        async with Forwarder(process, folder, host, owner, address, devices, options) as made:
            yield made
    finally:
        process.kill()


def external(vpp, host, folder, owner="forwarder", address=None, devices=(), **options):
    """A forwarder on a VPP that others run: a stand-in of the test's own process, or a path."""
    process = ExternalVPP(str(getattr(vpp, "api", vpp)))
    process.stats = str(getattr(vpp, "stats", process.stats))
    return Forwarder(process, folder, host, owner, address, devices, options, timeout=0.3)


@asynccontextmanager
async def workload_in(host, folder):
    """A VPP in the namespace of a workload; yields a connection to it."""
    process = Process(folder, host)
    try:
        await process.provide()
        async with AsyncExitStack() as stack:
            yield await stack.enter_async_context(await VPP.connect(process.api))
    finally:
        process.kill()


async def add_memif(vpp, socket, *, is_master, address=None, peer=None, mode="MEMIF_MODE_API_IP"):
    """A memif in a workload's VPP, with an address; returns its number."""
    name = f"abstract:{socket.removeprefix('@')}"
    number = (await vpp.call("memif_socket_filename_add_del_v2", is_add=True, socket_filename=name)).socket_id
    role = "MEMIF_ROLE_API_MASTER" if is_master else "MEMIF_ROLE_API_SLAVE"
    made = await vpp.call("memif_create_v2", role=role, mode=mode, socket_id=number)
    index = made.sw_if_index
    await vpp.call("sw_interface_set_flags", sw_if_index=index, flags=["IF_STATUS_API_FLAG_ADMIN_UP"])
    if address is not None:
        await vpp.call("sw_interface_add_del_address", sw_if_index=index, is_add=True, prefix=address)
        path = {"sw_if_index": index, "weight": 1, "proto": "FIB_API_PATH_NH_PROTO_IP4"}
        await vpp.call("ip_route_add_del_v2", is_add=True, route={"prefix": peer, "paths": [path]})
    return index


async def pings(vpp, address):
    """Whether VPP has an answer from `address`."""
    told = await vpp.call("cli_inband", cmd=f"ping {address} repeat 3 interval 0.2", timeout=10)
    return " 0 received" not in told.reply and "received" in told.reply


async def transferred(server, client, address):
    """How many bytes arrive of `SIZE` that `client` sends to `address`, which is the server's, over TCP."""
    serve = f"""
import socket
with socket.create_server(("{address}", 5555)) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()
    print(sum(iter(lambda: len(connection.recv(1 << 16)), 0)))
"""
    send = f"""
import socket
with socket.create_connection(("{address}", 5555), timeout=8) as connection:
    connection.sendall(bytes({SIZE}))
"""
    words = ["nsenter", f"--net={server.path}", sys.executable, "-c", serve]
    serving = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        await serving.stdout.readline()
        words = ["nsenter", f"--net={client.path}", sys.executable, "-c", send]
        sending = await asyncio.create_subprocess_exec(*words)
        assert await sending.wait() == 0
        return int(await serving.stdout.readline())
    finally:
        if serving.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                serving.kill()
        await serving.wait()
