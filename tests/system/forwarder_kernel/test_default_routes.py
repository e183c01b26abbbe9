"""A pod that has a default route of its own and gets another one over a wire: which way packets leave, and what stays."""

import ipaddress
import os
import re
import socket
import time
from dataclasses import replace

import pytest

from nsm.apis.connectioncontext import Route
from nsm.chains.forwarding.sides import Vxlan
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces
from tests.system.forwarder_kernel.hosts import Host, way, wire
from tests.system.forwarder_kernel.nodes import Underlay, plane_in

pytestmark = pytest.mark.system

FLOWS, PORT = 40, 7000
BOTH = {"src_ip_addrs": ["10.0.0.1/32", "fd00::1/128"], "dst_ip_addrs": ["10.0.0.0/32", "fd00::/128"]}
EVERYTHING = [Route(prefix="0.0.0.0/0"), Route(prefix="::/0")]
OUTSIDE = {4: "203.0.113.9", 6: "2001:db8:9::9"}
NEXT_HOP, GATEWAY = {4: "10.0.0.0", 6: "fd00::"}, {4: "10.244.1.1", 6: "fd00:244::1"}
CLUSTER = {4: "10.96.0.10", 6: "fd00:96::10"}
EVERYWHERE = [*OUTSIDE.values(), *CLUSTER.values()]


class Pod(Host):
    """Has an interface of a cluster's network, with default routes by it, and one to the cluster's services."""

    def __init__(self, gateway):
        super().__init__()
        self.gateway = gateway
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "pod", "netns", gateway.path)
        self.run("ip", "link", "set", "eth0", "up")
        gateway.run("ip", "link", "set", "pod", "up")
        for version, length in ((4, 24), (6, 64)):
            address, own = f"{GATEWAY[version]}/{length}", f"{GATEWAY[version]}0/{length}"
            nodad = ["nodad"] if version == 6 else []
            gateway.run("ip", "address", "add", address, "dev", "pod", *nodad)
            self.run("ip", "address", "add", own, "dev", "eth0", *nodad)
            self.run("ip", f"-{version}", "route", "add", "default", "via", GATEWAY[version], "dev", "eth0")
            services = ipaddress.ip_interface(f"{CLUSTER[version]}/{length}").network
            self.run("ip", "route", "add", str(services), "via", GATEWAY[version], "dev", "eth0")
        self.settled()

    def settled(self):
        """The gateway is known and answers, so that the kernel may prefer it."""
        assert self.pings(GATEWAY[4])
        assert self.pings(GATEWAY[6])

    def own_defaults(self):
        found = [self.run("ip", f"-{version}", "route", "show", "default", "dev", "eth0") for version in (4, 6)]
        return [text.replace(" linkdown", "").strip() for text in found]


class Sink:
    """Takes packets for every address outside, and counts them; where it is, they are at home."""

    def __init__(self, host):
        self.socks = {}
        host.run("ip", "link", "set", "lo", "up")
        for address in EVERYWHERE:
            host.run("ip", "route", "add", "local", address, "dev", "lo")

        def listen():
            namespaces.enter(host.descriptor, namespaces.NEW_NET)
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                self.socks[version] = sock = socket.socket(family, socket.SOCK_DGRAM)
                if version == 6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("", PORT))
                sock.setblocking(False)

        namespaces.in_thread(listen)

    def sources(self, version):
        """Whom packets came from since the last look."""
        found = []
        while True:
            try:
                found.append(self.socks[version].recvfrom(64)[1][0])
            except BlockingIOError:
                return found

    def close(self):
        for sock in self.socks.values():
            sock.close()


def send(host, address, count=FLOWS, source=""):
    """New flows: a socket of its own for each packet."""

    def work():
        namespaces.enter(host.descriptor, namespaces.NEW_NET)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for _ in range(count):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                if source:
                    sock.bind((source, 0))
                sock.sendto(b"?", (address, PORT))

    namespaces.in_thread(work)


class Scene:
    """A pod, its gateway and an endpoint, and what either of the latter two got."""

    def __init__(self):
        self.gateway, self.endpoint = Host(), Host()
        self.pod = Pod(self.gateway)
        self.sinks = {"eth0": Sink(self.gateway), "wire": Sink(self.endpoint)}

    def left_by(self, version, address, count=FLOWS, source="", seconds=5.0):
        """How many of `count` new flows left by either way; all of them arrive somewhere."""
        for sink in self.sinks.values():
            sink.sources(version)
        send(self.pod, address, count, source)
        found, end = dict.fromkeys(self.sinks, 0), time.monotonic() + seconds
        while sum(found.values()) < count and time.monotonic() < end:
            for name, sink in self.sinks.items():
                found[name] += len(sink.sources(version))
            time.sleep(0.002)
        return found

    def close(self):
        for sink in self.sinks.values():
            sink.close()
        for host in (self.pod, self.gateway, self.endpoint):
            os.close(host.descriptor)


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


def to_endpoint(scene, payload="IP", routes=EVERYTHING, **options):
    return wire(scene.pod, scene.endpoint, payload, src_routes=list(routes), **BOTH, **options)


def rules(host):
    found = [rule for family in ("-4", "-6") for rule in host.json(family, "rule") if rule.get("protocol") == "110"]
    return sorted((rule["src"], rule["table"]) for rule in found)


BY_WIRE, BY_POD = {"eth0": 0, "wire": FLOWS}, {"eth0": FLOWS, "wire": 0}


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_all_new_flows_leave_by_the_wire_that_has_the_default_route(scene, dataplane, payload):
    """At once, after the wire was idle, and when its next hop did not answer for a while."""
    await dataplane.create(to_endpoint(scene, payload), "c")
    for version, address in OUTSIDE.items():
        assert scene.left_by(version, address, seconds=0.5) == BY_WIRE, (version, "at once")
        for state in ("stale", "failed") if payload == "ETHERNET" else ():
            scene.pod.settled()
            scene.pod.run("ip", "neighbor", "change", NEXT_HOP[version], "dev", "nsm-1", "nud", state)
            assert scene.left_by(version, address)["eth0"] == 0, (version, state)


async def test_all_new_flows_leave_by_a_wire_to_another_node(scene):
    """Whose next hop is asked for again and again, and sometimes does not answer at once."""
    underlay = Underlay()
    nodes = [
        (underlay.node(f"{address}/24"), ipaddress.ip_address(address)) for address in ("172.16.1.1", "172.16.1.2")
    ]
    planes = [plane_in(host) for host, _ in nodes]
    (_, here), (_, there) = nodes
    whole = replace(to_endpoint(scene, "ETHERNET"), mtu=1446)
    near, far = whole.sides
    parts = [
        whole.moved(near, Vxlan(7, here, 4789, there, 4789)),
        whole.moved(Vxlan(7, there, 4789, here, 4789), far),
    ]
    for plane, part in zip(planes, parts, strict=True):
        await plane.create(part, "c")
    for version, address in OUTSIDE.items():
        assert scene.pod.pings(NEXT_HOP[version])
        for state in ("stale", "failed"):
            scene.pod.settled()
            scene.pod.run("ip", "neighbor", "change", NEXT_HOP[version], "dev", "nsm-1", "nud", state)
            assert scene.left_by(version, address)["eth0"] == 0, (version, state)
            assert scene.left_by(version, address) == BY_WIRE, (version, state)
    for plane in planes:
        await plane.aclose()


async def test_the_pods_own_default_route_is_never_touched_and_in_force_after_the_wire(scene, dataplane):
    before = scene.pod.own_defaults()
    assert all(before)
    live = await dataplane.create(to_endpoint(scene), "c")
    assert scene.pod.own_defaults() == before
    await dataplane.change(live, to_endpoint(scene, routes=[]))
    assert rules(scene.pod) == []
    assert [scene.left_by(version, address) for version, address in OUTSIDE.items()] == [BY_POD] * 2
    await dataplane.change(live, to_endpoint(scene))
    assert [scene.left_by(version, address) for version, address in OUTSIDE.items()] == [BY_WIRE] * 2
    await dataplane.remove(live.connection_id)
    assert (scene.pod.own_defaults(), rules(scene.pod)) == (before, [])
    assert [scene.left_by(version, address) for version, address in OUTSIDE.items()] == [BY_POD] * 2


async def test_rules_that_somebody_removed_come_back_and_go_with_a_wire_that_nobody_holds(scene, dataplane):
    live = await dataplane.create(to_endpoint(scene), "c")
    whole = rules(scene.pod)
    await dataplane.let_go(live)
    assert dataplane.open_namespaces() == 0
    scene.pod.run("ip", "rule", "delete", "priority", "29002")
    scene.pod.run("ip", "-6", "route", "flush", "table", str((1 << 31) + live.ends[0].index))
    assert {repair.kind for _, repair in (await dataplane.mend(live, do=False)).repairs} == {"rule"}
    assert len((await dataplane.mend(live, do=True)).repairs) == 1
    assert rules(scene.pod) == whole
    assert scene.left_by(4, OUTSIDE[4]) == BY_WIRE
    assert scene.left_by(6, OUTSIDE[6]) == BY_WIRE
    await dataplane.remove("c")
    assert rules(scene.pod) == []
    assert dataplane.open_namespaces() == 0


async def test_another_next_hop_of_the_default_route_is_used_from_the_next_refresh_on(scene, dataplane):
    """Another one alone, or as the first of two."""
    both = [
        [Route("0.0.0.0/0", hop) for hop in hops] for hops in (["10.0.0.0"], ["10.0.0.8"], ["10.0.0.9", "10.0.0.8"])
    ]
    live = await dataplane.create(to_endpoint(scene, routes=both[0]), "c")
    for routes in (*both[1:], *both):
        await dataplane.change(live, to_endpoint(scene, routes=routes))
        (found,) = scene.pod.json("route", "get", OUTSIDE[4])
        assert (found["dev"], found["gateway"]) == ("nsm-1", routes[0].next_hop)


async def test_a_killed_forwarder_leaves_the_default_route_in_force_and_the_next_one_takes_it_back(scene):
    """Whether the wire goes with the endpoint meanwhile, or the next forwarder closes it."""
    before = scene.pod.own_defaults()
    for is_lost in (False, True):
        killed, successor = Dataplane("forwarder"), Dataplane("forwarder")
        await killed.create(to_endpoint(scene), "c")
        await killed.aclose()
        assert scene.left_by(4, OUTSIDE[4]) == BY_WIRE
        if is_lost:
            scene.endpoint.run("ip", "link", "delete", "nse-1")
            assert [scene.left_by(version, address) for version, address in OUTSIDE.items()] == [BY_POD] * 2
        live = await successor.create(to_endpoint(scene), "c")
        assert scene.left_by(6, OUTSIDE[6]) == BY_WIRE
        await successor.remove(live.connection_id)
        assert (scene.pod.own_defaults(), rules(scene.pod)) == (before, [])
        assert scene.left_by(4, OUTSIDE[4]) == BY_POD
        await successor.aclose()


async def test_a_wire_that_takes_the_place_of_a_killed_forwarders_leaves_no_rules_of_that(scene):
    before = scene.pod.own_defaults()
    killed, successor = Dataplane("forwarder"), Dataplane("forwarder")
    await killed.create(to_endpoint(scene), "c")
    await killed.aclose()
    live = await successor.create(to_endpoint(scene), "another")
    assert [scene.left_by(version, address) for version, address in OUTSIDE.items()] == [BY_WIRE] * 2
    await successor.remove(live.connection_id)
    assert (scene.pod.own_defaults(), rules(scene.pod)) == (before, [])
    await successor.aclose()


async def test_what_the_pod_reaches_by_narrower_routes_stays_and_so_do_its_answers(scene, dataplane):
    """A probe that comes to the pod's own address is answered by where it came from, though that is no neighbor."""
    await dataplane.create(to_endpoint(scene), "c")
    for version, address in CLUSTER.items():
        assert scene.left_by(version, address) == BY_POD
        outside, own, wires = OUTSIDE[version], f"{GATEWAY[version]}0", {4: "10.0.0.1", 6: "fd00::1"}[version]
        assert scene.left_by(version, outside, source=own) == BY_POD
        assert scene.left_by(version, outside, source=wires) == BY_WIRE


async def test_of_two_default_routes_the_first_wires_is_used_whichever_came_last(scene, dataplane):
    other = Host()
    both = {"src_ip_addrs": ["10.0.1.1/32", "fd01::1/128"], "dst_ip_addrs": ["10.0.1.0/32", "fd01::/128"]}
    first = replace(to_endpoint(scene), order=0)
    second = replace(wire(scene.pod, other, names=("nsm-2", "nse-2"), src_routes=EVERYTHING, **both), order=1)
    for wires in ((first, second), (second, first)):
        made = {each.order: await dataplane.create(each, f"c{each.order}") for each in wires}
        assert {way(scene.pod, address) for address in OUTSIDE.values()} == {"nsm-1"}
        await dataplane.remove(made[0].connection_id)
        assert {way(scene.pod, address) for address in OUTSIDE.values()} == {"nsm-2"}
        await dataplane.remove(made[1].connection_id)
        assert {way(scene.pod, address) for address in OUTSIDE.values()} == {"eth0"}
        assert rules(scene.pod) == []
    os.close(other.descriptor)


async def test_packets_for_a_next_hop_that_does_not_answer_are_not_sent_by_the_pods_own_way(scene, dataplane):
    """IPv6 passes over a route whose next hop has failed, and takes a wider one."""
    made = wire(scene.pod, scene.endpoint, "ETHERNET", src_routes=[Route(prefix="2001:db8::/32")], **BOTH)
    await dataplane.create(made, "c")
    scene.endpoint.run("ip", "address", "delete", "fd00::/128", "dev", "nse-1")
    scene.pod.run("sysctl", "-q", "-w", "net.ipv6.neigh.nsm-1.retrans_time_ms=10")
    send(scene.pod, OUTSIDE[6], 1)
    end = time.monotonic() + 5
    while (tries := asked(scene.pod, NEXT_HOP[6])) < 6 and time.monotonic() < end:
        time.sleep(0.01)
    assert (tries >= 6, way(scene.pod, OUTSIDE[6])) == (True, "nsm-1")


def asked(host, address):
    """How often in vain, by now."""
    found = re.search(r"probes (\d+)", host.run("ip", "-s", "-6", "neighbor", "show", address, "dev", "nsm-1"))
    return int(found[1]) if found else 0
