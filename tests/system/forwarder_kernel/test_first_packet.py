"""A wire is usable when its creation returns, not a moment later."""

import asyncio
import os
import socket

import pytest

from nsm.chains.netlink.namespaces import entered
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import Host, wire

pytestmark = pytest.mark.system
WIRES = 100


def udp_in(host, family):
    with entered(host.descriptor):
        return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_a_packet_that_is_sent_at_once_arrives(family, payload):
    """No time passes between the return and the packet, unlike with a program that has to be started first.

    The kernel drops what is sent before it has taken note of the carrier, which it does when it finds the time.
    """
    client, endpoint = Host(), Host()
    plane, lost = Dataplane("forwarder"), 0
    prefix = "10.0.0." if family == socket.AF_INET else "fd00::"
    sender, receiver = udp_in(client, family), udp_in(endpoint, family)
    receiver.bind(("0.0.0.0" if family == socket.AF_INET else "::", 4444))
    length = 32 if family == socket.AF_INET else 128
    try:
        for number in range(WIRES):
            ips = {"src_ip_addrs": [f"{prefix}1/{length}"], "dst_ip_addrs": [f"{prefix}2/{length}"]}
            pair = await plane.create(wire(client, endpoint, payload, **ips), f"c{number}")
            sender.sendto(b"first", (f"{prefix}2", 4444))
            try:
                async with asyncio.timeout(0.5):
                    assert await asyncio.get_running_loop().sock_recv(receiver, 10) == b"first"
            except TimeoutError:
                lost += 1
            await plane.remove(pair.connection_id)
    finally:
        await plane.aclose()
        for one in (sender, receiver):
            one.close()
        for host in (client, endpoint):
            os.close(host.descriptor)
    assert lost == 0
