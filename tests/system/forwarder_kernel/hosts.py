"""Network namespaces that live as long as a test, and wires between them."""

import asyncio
import json
import os
import subprocess

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import wire_of
from nsm.mesh import namespaces


class Host:
    """A network namespace that lives as long as the test."""

    def __init__(self):
        self.descriptor = namespaces.new_network()
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def run(self, *command, check=True):
        inside = ["nsenter", f"--net={self.path}", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=20, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *command):
        return json.loads(self.run("ip", "-d", "-j", *command))

    def links(self):
        return {link["ifname"]: link for link in self.json("address") if link["ifname"] != "lo"}

    def pings(self, address):
        return "1 received" in self.run("ping", "-n", "-c", "1", "-W", "2", address, check=False)


def wire(client, endpoint, payload="IP", names=("nsm-1", "nse-1"), mtu=0, **ip):
    addresses = {"src_ip_addrs": ["10.0.0.1/32"], "dst_ip_addrs": ["10.0.0.0/32"], **ip}
    context = ConnectionContext(ip_context=IpContext(**addresses), mtu=mtu)
    sides = (KernelInterface(host.path, name) for host, name in zip((client, endpoint), names, strict=True))
    return wire_of(Connection(payload=payload, context=context), *sides)


async def gone(links):
    """Wait until there are none: the kernel ends a namespace some time after whoever had it last."""
    async with asyncio.timeout(10):
        while links():
            await asyncio.sleep(0.01)


def way(host, address):
    """The interface that a packet to `address` leaves by."""
    (route,) = host.json("route", "get", address)
    return route["dev"]
