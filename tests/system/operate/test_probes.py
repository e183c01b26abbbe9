"""Probes over wires of real interfaces: what they find is what was made."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from contextlib import closing, contextmanager

import pytest

from nsm.mesh import namespaces
from nsm.operate.probes.decode import summary
from nsm.operate.probes.echo import mtu, ping, ways_of
from nsm.operate.probes.ends import CLIENT, ENDPOINT, Spaces
from nsm.operate.probes.filters import compiled
from nsm.operate.probes.measure import measure
from nsm.operate.probes.ring import RAW, Ring
from nsm.view.model import Wire, WireState
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.system

WIRE = Wire(
    id="client-0",
    client="client",
    service="s",
    state=WireState.UP,
    interface="nsm-1",
    endpoint="nse",
    client_addresses=["10.0.0.1/32", "fd00::1/128"],
    endpoint_addresses=["10.0.0.0/32", "fd00::/128"],
)


class Pair:
    """A client and an endpoint, and a switch between them, in three namespaces."""

    def __init__(self):
        self.client, self.endpoint, self.switch = Host(), Host(), Host()
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        for host, name, near, far in ((self.client, "nsm-1", 1, 0), (self.endpoint, "nse-1", 0, 1)):
            host.run("ip", "link", "add", name, "type", "veth", "peer", f"{name}p", "netns", self.switch.path)
            self.switch.run("ip", "link", "set", f"{name}p", "master", "br0", "up")
            for family, address in (("-4", "10.0.0."), ("-6", "fd00::")):
                more = ["nodad"] if family == "-6" else []
                host.run("ip", family, "address", "add", f"{address}{near}", "dev", name, *more)
            host.run("sysctl", "-qw", f"net.ipv6.conf.{name}.accept_dad=0")
            host.run("ip", "link", "set", name, "up")
            host.run("ip", "-4", "route", "add", f"10.0.0.{far}", "dev", name)
            host.run("ip", "-6", "route", "add", f"fd00::{far}", "dev", name)
        self.switch.run("ip", "link", "set", "br0", "up")
        self.hosts = [self.client, self.endpoint, self.switch]

    def close(self):
        for host in self.hosts:
            os.close(host.descriptor)


@contextmanager
def made():
    """A pair, and the ends of its wire."""
    with closing(Pair()) as pair, Spaces() as spaces:
        spaces.add(CLIENT, pair.client.path)
        spaces.add(ENDPOINT, pair.endpoint.path)
        ends = spaces.find(WIRE)
        assert ping(ways_of(WIRE, ends), count=1, interval=0.01)  # neighbours are known from now on
        yield pair, ends


@pytest.fixture(scope="module")
def ends():
    """Of a wire that no test changes."""
    with made() as (_, found):
        yield found


@pytest.fixture
def own():
    """A pair of the test's own, and the ends of its wire."""
    with made() as found:
        yield found


@pytest.fixture
def pair():
    with closing(Pair()) as found:
        yield found


def lines(ring, expected, seconds=5.0):
    """What was captured, until `expected` packets have come."""
    found, end = [], time.monotonic() + seconds
    while len(found) < expected and time.monotonic() < end:
        select.select([ring], [], [], 0.1)
        found += [summary(packet.data, ring.link_type, packet.length) for packet in ring.packets()]
    return found


def test_both_ends_ping_each_other_by_both_families(ends):
    found = ping(ways_of(WIRE, ends), count=5, interval=0.01)
    assert [(str(each.way.source), each.received, each.fault) for each in found] == [
        (source, 5, "") for source in ("10.0.0.1", "10.0.0.0", "fd00::1", "fd00::")
    ]
    assert all(0 < each.percentile(50) <= each.percentile(99) < 1000 for each in found)


def test_the_direction_that_is_down_is_told_with_its_reason(own):
    pair, ends = own
    pair.endpoint.run("ip", "link", "set", "nse-1", "down")
    to_endpoint, to_client = ping(ways_of(WIRE, ends)[:2], count=2, interval=0.01)
    assert to_endpoint.loss == to_client.loss == 1
    assert to_client.fault in ("the interface is down", "there is no route to the other end over the interface")


def test_echoes_that_a_switch_loses_are_counted(own):
    """Every second one."""
    pair, ends = own
    pair.switch.run("nft", "add table bridge t; add chain bridge t c { type filter hook forward priority 0; }")
    pair.switch.run("nft", "add rule bridge t c ether type ip numgen inc mod 4 0 drop")
    (found,) = ping(ways_of(WIRE, ends)[:1], count=16, interval=0.01)
    assert (found.sent, found.received) == (16, 8)  # a request, then an answer: one of four packets


@pytest.mark.parametrize("way", [0, 2])
def test_the_mtu_is_what_passes_not_what_the_interfaces_promise(own, way):
    """A switch on the way has a smaller one, and drops what is larger without a word."""
    pair, ends = own
    assert mtu(ways_of(WIRE, ends)[way], 1500) == 1500
    pair.switch.run("ip", "link", "set", "nse-1p", "mtu", "1391")
    assert mtu(ways_of(WIRE, ends)[way], 1500) == 1391


def test_a_wire_through_which_nothing_passes_has_no_mtu(own):
    pair, ends = own
    pair.switch.run("ip", "link", "set", "br0", "down")
    assert mtu(ways_of(WIRE, ends)[0], 1500) is None


@pytest.mark.parametrize(("udp", "family"), [(False, 0), (False, 2), (True, 0)])
def test_throughput_is_measured_both_ways(ends, udp, family):
    found = measure(ways_of(WIRE, ends)[family : family + 2], [*ends.values()], 0.1, udp=udp)
    assert (found.mtu, found.promised_mtu) == (1500, 1500)
    for passed in found.passed:
        assert passed.fault == ""
        assert passed.bits_per_s > 1e8
        assert passed.seconds > 0.02
        assert passed.paced_loss == 0
        assert 0 < passed.delay_ms < 100
        assert (passed.loss is None) != udp


def test_a_wire_that_loses_every_packet_is_measured_as_that(own, monkeypatch):
    pair, ends = own
    monkeypatch.setattr("nsm.operate.probes.stream.PATIENCE", 0.3)
    pair.switch.run("ip", "link", "set", "br0", "down")
    found = measure(ways_of(WIRE, ends)[:2], [*ends.values()], 0.2)
    assert found.mtu is None
    assert all(passed.bytes == 0 and passed.paced_loss == 1 and passed.fault for passed in found.passed)


def send_all(ends):
    """One packet each of what the filters below tell apart, from the client."""

    def send():
        for family, target in ((socket.AF_INET, "10.0.0.0"), (socket.AF_INET6, "fd00::")):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(("", 5353))
                sock.sendto(b"x" * 20, (target, 53))
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.bind(("", 4444))
                sock.setblocking(False)
                sock.connect_ex((target, 80))

    ends[CLIENT].inside(send)
    ping(ways_of(WIRE, ends)[::2], count=1, interval=0.01)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("icmp and src host 10.0.0.1 and dst 10.0.0.0", None),
        ("icmp and src host 10.0.0.1", {"10.0.0.1 > 10.0.0.0 ICMP"}),
        ("icmp6 and dst net fd00::/127 and not src host fd00::", {"fd00::1 > fd00:: ICMPv6"}),
        ("udp and src port 5353", {"10.0.0.1:5353 > 10.0.0.0:53 DNS", "[fd00::1]:5353 > [fd00::]:53 DNS"}),
        ("tcp dst port 80", {"10.0.0.1:4444 > 10.0.0.0:80 TCP", "[fd00::1]:4444 > [fd00::]:80 TCP"}),
        (
            "ip6 and (tcp src port 4444 or udp dst port 53)",
            {"[fd00::1]:4444 > [fd00::]:80 TCP", "[fd00::1]:5353 > [fd00::]:53 DNS"},
        ),
        ("net 10.0.0.0/30 and src host 10.0.0.1 and !icmp && !tcp", {"10.0.0.1:5353 > 10.0.0.0:53 DNS"}),
        ("src host fd00::1 and tcp", {"[fd00::1]:4444 > [fd00::]:80 TCP"}),
        ("port 80 and dst host 10.0.0.0", {"10.0.0.1:4444 > 10.0.0.0:80 TCP"}),
    ],
)
def test_a_filter_lets_through_what_it_says(ends, words, expected):
    """What else was sent at the same time does not pass."""
    if expected is None:
        with pytest.raises(ValueError, match="'10.0.0.0' is not a test"):
            compiled(words)
        return
    with closing(Ring(ends[CLIENT], compiled(words))) as ring:
        send_all(ends)
        found = lines(ring, len(expected))
        found += lines(ring, 1, 0.2)  # whatever else there is
    heads = {" ".join(line.split()[:4]) for line in found}
    assert heads == expected


def test_arp_is_captured_too(own):
    pair, ends = own
    with closing(Ring(ends[CLIENT], compiled("arp and host 10.0.0.0"))) as ring:
        pair.client.run("ip", "neighbor", "flush", "dev", "nsm-1")
        ping(ways_of(WIRE, ends)[:1], count=1, interval=0.01)
        assert "ARP who has 10.0.0.0? tell 10.0.0.1, 42 bytes" in lines(ring, 2)


def tunnel_in(host, name):
    """An interface without Ethernet; a file is its other end."""

    def make():
        namespaces.enter(host.descriptor, namespaces.NEW_NET)
        file = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115 - the test closes it
        fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        return file

    return namespaces.in_thread(make)


def test_an_interface_without_ethernet_is_captured_as_what_it_is(pair):
    """As those of WireGuard: a filter finds the same headers."""
    tunnel = tunnel_in(pair.client, "tun")
    pair.client.run("ip", "address", "add", "10.9.0.1/31", "dev", "tun")
    pair.client.run("ip", "link", "set", "tun", "up")
    wire = Wire(
        id="x", client="client", service="s", state=WireState.UP, interface="tun", endpoint="nse",
        client_addresses=["10.9.0.1/32"], endpoint_addresses=["10.9.0.0/32"],
    )  # fmt: skip
    with Spaces() as spaces:
        spaces.add(CLIENT, pair.client.path)
        spaces.add(ENDPOINT, pair.endpoint.path)
        ends = spaces.find(wire)
        with tunnel, closing(Ring(ends[CLIENT], compiled("icmp and src host 10.9.0.1"))) as ring:
            assert ring.link_type == RAW
            ping(ways_of(wire, ends)[:1], count=1, interval=0.01)
            (line,) = lines(ring, 1)
    assert line.startswith("10.9.0.1 > 10.9.0.0 ICMP echo request")


def test_an_end_is_found_among_all_namespaces_of_the_machine_by_its_alias(pair):
    """Not by an address that another wire has too."""
    other = Pair()
    wire = Wire(
        id="probes-test-id", client="client", service="s", state=WireState.UP, interface="nsm-1", endpoint="nse",
        client_addresses=WIRE.client_addresses, endpoint_addresses=WIRE.endpoint_addresses,
    )  # fmt: skip
    sleeping = []
    try:
        for host in (pair.client, pair.endpoint, other.client, other.endpoint):
            sleeping.append(subprocess.Popen(["nsenter", f"--net={host.path}", "sleep", "60"]))
        for host, name in ((pair.client, "nsm-1"), (pair.endpoint, "nse-1")):
            host.run("ip", "link", "set", name, "alias", "nsm owner probes-test-id")
        with Spaces() as spaces:
            spaces.add_all()
            ends = spaces.find(wire)
            for end, host in ((ends[CLIENT], pair.client), (ends[ENDPOINT], pair.endpoint)):
                assert os.path.samestat(os.fstat(end.network), os.stat(host.path))
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
        other.close()
