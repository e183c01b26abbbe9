"""An end of a wire has the addresses and routes that the connection gives it, whatever somebody there advertises."""

import ipaddress
import socket
import struct
import subprocess
import sys
from dataclasses import replace

import pytest

from nsm.mesh import namespaces
from tests.system.forwarder_kernel.hosts import wire

from .breakout import Network, wire_to
from .nodes import Host, plane_in

pytestmark = pytest.mark.system

EVERYBODY, HOP_LIMIT = "ff02::1", 255
PREFIX = ipaddress.ip_network("2001:db8:bad::/64")


def advertise(host, interface):
    """One router advertisement, which offers a default route and addresses (RFC 4861, 4.2 and 4.6.2)."""
    router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII16s", 3, 4, PREFIX.prefixlen, 0xC0, 86400, 14400, 0, PREFIX.network_address.packed)

    def work():
        namespaces.enter(host.descriptor, namespaces.NEW_NET)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOP_LIMIT)
            sock.sendto(router + prefix, (EVERYBODY, 0, 0, socket.if_nametoindex(interface)))

    namespaces.in_thread(work)


def taken_from_it(host, name):
    """What an interface has that nobody gave it: global IPv6 addresses, and default routes."""
    addresses = [each["local"] for each in host.links()[name]["addr_info"] if each["family"] == "inet6"]
    routes = host.json("-6", "route", "show", "default")
    return [*(each for each in addresses if ipaddress.ip_address(each) in PREFIX), *(each["dev"] for each in routes)]


def from_a_router(host, name, router, interface):
    """Advertise, and see what was taken; what is sent afterwards arrives afterwards."""
    router.run("ip", "address", "add", "fe80::1/64", "dev", interface, "nodad")
    advertise(router, interface)
    assert host.pings("10.0.0.254") or router.pings("10.0.0.1")
    return taken_from_it(host, name)


@pytest.fixture
async def plane():
    made = plane_in(Host())
    yield made
    await made.aclose()


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_neither_a_client_nor_an_endpoint_follows_what_the_other_advertises(plane, payload):
    client, endpoint = Host(), Host()
    await plane.create(wire(client, endpoint, payload), "c")
    assert from_a_router(client, "nsm-1", endpoint, "nse-1") == []
    assert from_a_router(endpoint, "nse-1", client, "nsm-1") == []


async def test_a_client_in_a_network_behind_an_uplink_does_not_follow_its_routers():
    network, client = Network(), Host()
    plane = plane_in(network.node)
    network.give(0, "10.0.0.254")
    await plane.create(wire_to(client, 0, "10.0.0.1"), "c")
    assert from_a_router(client, "nsm-1", network.machine, "eth0") == []
    await plane.aclose()


async def test_a_wire_that_has_ipv6_only_since_its_mtu_grew_does_not_follow_them_either(plane):
    client, endpoint = Host(), Host()
    live = await plane.create(wire(client, endpoint, "ETHERNET", mtu=1200), "c")
    await plane.change(live, wire(client, endpoint, "ETHERNET", mtu=1400))
    assert from_a_router(client, "nsm-1", endpoint, "nse-1") == []


async def test_a_client_that_wants_them_follows_advertisements(plane):
    client, endpoint = Host(), Host()
    await plane.create(replace(wire(client, endpoint, "ETHERNET"), accept_ra=True), "c")
    address, route = from_a_router(client, "nsm-1", endpoint, "nse-1")
    assert (ipaddress.ip_address(address) in PREFIX, route) == (True, "nsm-1")
    assert from_a_router(endpoint, "nse-1", client, "nsm-1") == []


IN_A_CONTAINER = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$0" -c "$1"'
SETTINGS = """
import errno
from nsm.chains.netlink import Namespaces
from nsm.mesh import namespaces

descriptor = namespaces.new_network()
spaces = Namespaces(with_own=True)
taken = spaces.take(f"/proc/self/fd/{descriptor}")
taken.refuse_advertisements("lo")
namespaces.enter(descriptor, namespaces.NEW_NET)
folder = "/proc/sys/net/ipv6/conf/lo"
print(*(open(f"{folder}/{name}").read().strip() for name in ("accept_ra", "autoconf")))
try:
    open(f"{folder}/accept_ra", "w")
except OSError as error:
    print(errno.errorcode[error.errno])
spaces.close()
"""


def test_a_forwarder_whose_settings_are_read_only_as_in_a_container_changes_those_of_its_wires():
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", IN_A_CONTAINER, sys.executable, SETTINGS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["0", "0", "EROFS"], "")
