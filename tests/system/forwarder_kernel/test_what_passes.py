"""What a wire carries: any frame, whatever is in it, between workloads of one node and of two."""

import ipaddress
import socket
import struct

import pytest

from nsm.chains.forwarding.sides import Vxlan
from nsm.mesh import namespaces
from tests.system.forwarder_kernel.hosts import wire
from tests.system.forwarder_kernel.vxlan_ends import end_of, node

from .nodes import Host, Underlay, plane_in

pytestmark = pytest.mark.system

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))
MTU = 8946
"""Of a VXLAN wire over an underlay of 9000."""
EVERYTHING = 0x0003
_SOL_PACKET, _PACKET_AUXDATA, _VLAN_VALID = 263, 8, 0x10
_AUXDATA = struct.Struct("=IIIHHHH")
"""Status, length, length that was taken, offsets of both headers, VLAN tag and its type."""


class Port:
    """A raw socket on an interface: sends frames as they are, and sees all that come."""

    def __init__(self, host, name):
        def make():
            namespaces.enter(host.descriptor, namespaces.NEW_NET)
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
            sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            sock.bind((name, EVERYTHING))
            return sock

        self.sock = namespaces.in_thread(make)
        self.sock.settimeout(2)
        self.mac = self.sock.getsockname()[4]

    def send(self, target, ethertype, payload):
        self.sock.send(target + self.mac + struct.pack("!H", ethertype) + payload)

    def receive(self):
        """The next frame, with the VLAN tag that the kernel takes out and tells beside it."""
        frame, extra, _, _ = self.sock.recvmsg(65535, 100)
        status, *_, tag, kind = _AUXDATA.unpack(extra[0][2])
        return frame[:12] + struct.pack("!HH", kind, tag) + frame[12:] if status & _VLAN_VALID else frame

    def receives(self, ethertype, payload):
        """Whether exactly that comes; short frames come padded."""
        try:
            while True:
                frame = self.receive()
                if struct.unpack_from("!H", frame, 12)[0] == ethertype and frame[14:].rstrip(b"\0") == payload:
                    return True
        except TimeoutError:
            return False


async def local_wire(stack):
    client, endpoint = Host(), Host()
    plane = plane_in(Host())
    stack.append(plane)
    await plane.create(wire(client, endpoint, "ETHERNET", mtu=MTU), "c")
    return client, endpoint


async def vxlan_wire(stack):
    underlay = Underlay(mtu=9000)
    client, endpoint = Host(), Host()
    near, far = (plane_in(node(underlay, address)) for address in (A, B))
    stack += [near, far]
    await near.create(end_of(client, "nsm-1", Vxlan(7, A, 4789, B, 4789), mtu=MTU), "c")
    back = Vxlan(7, B, 4789, A, 4789)
    await far.create(end_of(endpoint, "nse-1", back, side="endpoint", mtu=MTU), "c")
    return client, endpoint


@pytest.fixture(params=[local_wire, vxlan_wire])
async def hosts(request):
    planes = []
    yield await request.param(planes)
    for plane in planes:
        await plane.aclose()


@pytest.fixture
def ports(hosts):
    made = Port(hosts[0], "nsm-1"), Port(hosts[1], "nse-1")
    yield made
    for port in made:
        port.sock.close()


def ipv4(protocol, payload):
    source, target = (ipaddress.ip_address(text).packed for text in ("10.0.0.1", "10.0.0.0"))
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, source, target) + payload


SCTP = struct.pack("!HHII", 36412, 36412, 0, 0) + b"\1\0\0\x14init"
"""A chunk of 5G's N2 interface: SCTP's port 36412 of LTE's S1."""
FRAMES = {
    "an invented ethertype": (0x1234, b"nobody knows this"),
    "sctp": (0x0800, ipv4(132, SCTP)),
    "pppoe session": (0x8864, b"\x11\0\0\7\0\6\xc0\x21\1\1\0\4"),
    "pppoe discovery": (0x8863, b"\x11\x09\0\0\0\4\1\1\0\0\1"),
    "mpls": (0x8847, b"\0\1\x01\xff" + ipv4(17, b"inside")),
    "tagged": (0x8100, b"\x00\x64\x08\x06inside a VLAN"),
    "precision time": (0x88F7, b"\x0b\2sync"),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
async def test_any_frame_passes_both_ways_as_it_is(ports, frame):
    one, other = ports
    one.send(other.mac, *frame)
    assert other.receives(*frame)
    other.send(one.mac, *frame)
    assert one.receives(*frame)


async def test_a_frame_as_large_as_the_wires_mtu_passes_and_none_larger_is_sent(hosts, ports):
    one, other = ports
    assert hosts[0].links()["nsm-1"]["mtu"] == hosts[1].links()["nse-1"]["mtu"] == MTU
    one.send(other.mac, 0x1234, b"x" * MTU)
    assert other.receives(0x1234, b"x" * MTU)
    with pytest.raises(OSError, match="Message too long"):
        one.send(other.mac, 0x1234, b"x" * (MTU + 5))


@pytest.mark.parametrize("target", ["ffffffffffff", "01005e010203", "333300000001"])
async def test_broadcast_and_multicast_pass(ports, target):
    one, other = ports
    one.send(bytes.fromhex(target), 0x0800, ipv4(17, b"to many"))
    assert other.receives(0x0800, ipv4(17, b"to many"))


async def test_ipv6_neighbors_find_each_other(hosts):
    """Neighbour discovery is multicast and ICMPv6; the link-local addresses are the kernel's own."""
    assert hosts[0].pings("10.0.0.0")
    link = hosts[1].links()["nse-1"]
    (address,) = [each["local"] for each in link["addr_info"] if each["scope"] == "link"]
    hosts[0].run("ping", "-n", "-c", "1", "-w", "5", f"{address}%nsm-1")
    found = [each for each in hosts[0].json("-6", "neighbor") if each["dst"] == address]
    assert found[0]["lladdr"] == link["address"]


async def test_multicast_of_programs_passes(hosts):
    """A group that is joined on the wire's interface gets what is sent to it there."""

    def socket_in(host, name, address):
        def make():
            namespaces.enter(host.descriptor, namespaces.NEW_NET)
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(2)
            interface = struct.pack("4s4si", bytes(4), bytes(4), socket.if_nametoindex(name))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sock.bind(("", 5555))
            joined = struct.pack("4s4si", socket.inet_aton("239.1.2.3"), bytes(4), socket.if_nametoindex(name))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            return sock

        return namespaces.in_thread(make)

    one, other = socket_in(hosts[0], "nsm-1", "10.0.0.1"), socket_in(hosts[1], "nse-1", "10.0.0.0")
    with one, other:
        one.sendto(b"to the group", ("239.1.2.3", 5555))
        assert other.recv(100) == b"to the group"


async def test_packets_pass_a_wire_of_packets_without_any_question_for_addresses():
    """Neither ARP nor neighbour discovery is seen, and both IP versions pass."""
    client, endpoint = Host(), Host()
    plane = plane_in(Host())
    both = {"src_ip_addrs": ["10.0.0.1/32", "fd00::1/128"], "dst_ip_addrs": ["10.0.0.0/32", "fd00::/128"]}
    await plane.create(wire(client, endpoint, "IP", **both), "c")
    port = Port(endpoint, "nse-1")
    assert client.pings("10.0.0.0")
    assert client.pings("fd00::")
    port.sock.settimeout(0.1)
    questions = []
    try:
        while True:
            frame = port.sock.recv(65535)
            if frame[12:14] == b"\x08\x06" or (frame[12:14] == b"\x86\xdd" and frame[54:55] in {b"\x87", b"\x88"}):
                questions.append(frame)
    except TimeoutError:
        pass
    port.sock.close()
    assert questions == []
    await plane.aclose()
