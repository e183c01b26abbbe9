"""Policy routes in real namespaces: which way a packet goes, what is touched, what is left."""

import asyncio

import pytest

from nsm.apis.connectioncontext import PolicyRoute, Route
from nsm.chains.core import Conflict, InvalidRequest, MeshError
from nsm.forwarder_kernel import policy_tables
from nsm.forwarder_kernel.policy_tables import FIRST_TABLE, LAST_TABLE, RESERVED
from tests.system.forwarder_kernel.hosts import wire
from tests.system.forwarder_kernel.policies import (
    IPV4,
    IPV6,
    Connections,
    Echo,
    host,
    nothing_is_left,
    received,
    rules,
    send,
    tables,
)

pytestmark = pytest.mark.system

HTTP = PolicyRoute(from_="10.0.0.3/32", proto="17", dst_port="80-90")
DNS = PolicyRoute(proto="17", dst_port="53", routes=[Route(prefix="172.16.0.0/12")])
ANY = PolicyRoute(from_="10.0.0.9/32", routes=[Route(prefix="0.0.0.0/0", next_hop="10.0.0.2")])
ICMP6 = PolicyRoute(from_="fd00::3/128", proto="58")


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["ipv4", "ipv6"])
async def test_packets_that_a_policy_selects_take_the_other_wire(mesh, connections, family):
    """By source, protocol and port; an empty list of routes is the default route of the family."""
    client, ends, _, _ = mesh
    (src, _), (other, _), server = family["two"], family["one"], family["server"]
    echoes = [Echo(end, server, [53, 80, 85, 91]) for end in ends]

    def way(source, port):
        send(client, source, server, port)
        return ["one", "two"][list(map(bool, received(echoes))).index(True)]

    try:
        assert way(src, 80) == "one"
        await connections.request(PolicyRoute(from_=host(src), proto="17", dst_port="80-90"))
        assert {port: way(src, port) for port in (53, 80, 85, 91)} == {53: "one", 80: "two", 85: "two", 91: "one"}
        assert way(other, 80) == "one"
        await connections.request(PolicyRoute(proto="6", dst_port="80"), PolicyRoute(dst_port="53"))
        assert {port: way(other, port) for port in (53, 80)} == {53: "two", 80: "one"}
        await connections.close()
        assert [way(src, 80), way(other, 53)] == ["one", "one"]
        assert nothing_is_left(client)
    finally:
        for echo in echoes:
            echo.close()


async def test_rules_are_tried_in_the_order_of_the_list(mesh, connections):
    """Also when the order changes, or one is put before the others later."""
    client = mesh[0]
    everything, web, dns = PolicyRoute(from_="10.0.0.3/32"), PolicyRoute(from_="10.0.0.0/24", dst_port="80"), DNS
    one, two, three = ("10.0.0.3", None, (None, None)), ("10.0.0.0", None, 80), ("all", "udp", 53)
    for policies, expected in (
        ([everything, web], [one, two]),
        ([web, everything], [two, one]),
        ([dns, web, everything], [three, two, one]),
    ):
        await connections.request(*policies)
        assert rules(client) == expected


async def test_tables_have_the_first_numbers_that_nobody_uses_in_the_order_of_the_policies(mesh, connections):
    """As upstream's examples look for them; what is for both families has one number in both."""
    client = mesh[0]
    client.run("ip", "-6", "route", "add", "fd55::/64", "dev", "one", "table", "2")
    client.run("ip", "rule", "add", "from", "192.0.2.1", "lookup", "4")
    await connections.request(HTTP, PolicyRoute(proto="17", dst_port="7"), DNS, ICMP6)
    assert rules(client) == [
        ("10.0.0.3", "udp", (80, 90)),
        ("all", "udp", 7),
        ("all", "udp", 53),
        ("all", "udp", 7),
        ("fd00::3", "ipv6-icmp", (None, None)),
    ]
    found = tables(client)
    assert found.pop(2) == {("fd55::/64", None)}
    assert found == {
        1: {("default", "10.0.0.2")},
        3: {("default", "10.0.0.2"), ("default", "fd00::2")},
        5: {("172.16.0.0/12", "10.0.0.2")},
        6: {("default", "fd00::2")},
    }


async def test_tables_can_be_in_a_range_of_their_own(mesh):
    connections = Connections(mesh[0], RESERVED)
    await connections.request(HTTP, DNS, ICMP6)
    found = tables(mesh[0])
    assert len(found) == 3
    assert all(FIRST_TABLE <= number <= LAST_TABLE for number in found)
    await connections.close()
    await connections.aclose()


async def test_a_refresh_removes_what_is_obsolete_and_touches_nothing_that_is_unchanged(mesh, connections, watch):
    client = mesh[0]
    await connections.request(HTTP, DNS, ICMP6)
    before, changes = tables(client), watch(client)
    await connections.request(HTTP, DNS, ICMP6)
    assert changes.seen() == []
    await connections.request(DNS, ICMP6)
    assert changes.seen() == ["-route", "-rule"]
    assert tables(client).items() < before.items()
    await connections.request(ANY, DNS, ICMP6)
    assert changes.seen() == ["+route", "+rule"]
    more = PolicyRoute(proto="17", dst_port="53", routes=[*DNS.routes, Route(prefix="192.168.0.0/16")])
    await connections.request(ANY, more, ICMP6)
    assert changes.seen() == ["+route", "+rule"]  # a rule for each length of prefix
    await connections.request(ANY, DNS, ICMP6)
    assert changes.seen() == ["-route", "-rule"]
    moved = PolicyRoute(from_="10.0.0.9/32", routes=[Route(prefix="0.0.0.0/0", next_hop="10.0.0.3")])
    with pytest.raises(MeshError, match="the kernel refused to add route 0.0.0.0/0"):
        await connections.request(moved, DNS, ICMP6)
    assert ("default", "10.0.0.2") in set().union(*tables(client).values())
    await connections.request()
    assert nothing_is_left(client)
    assert len(connections.kernel) == 0


async def test_a_forwarder_that_starts_again_finds_its_policy_routes(mesh, watch):
    """It removes what is not wanted any more, also if nothing is, and touches nothing else."""
    client = mesh[0]
    first, second, third = Connections(client), Connections(client), Connections(client)
    await first.request(HTTP, DNS, ICMP6)
    await first.aclose()
    changes = watch(client)
    await second.request(HTTP, DNS, ICMP6)
    assert changes.seen() == []
    await second.request(DNS, HTTP)
    assert len(tables(client)) == 2
    await second.aclose()
    await third.request()
    assert nothing_is_left(client)
    await third.aclose()


async def test_tables_have_the_same_numbers_after_a_restart_and_a_heal_whoever_comes_first(mesh):
    """Heal facts 11.11, of two wires with policies: the second one asks first, the first one gets a new interface."""
    client, ends, plane, pairs = mesh
    before = Connections(client)
    await before.request(HTTP, DNS, name="one")
    await before.request(ICMP6, name="two")
    there = tables(client)
    await before.aclose()
    after = Connections(client)
    await after.request(ICMP6, name="two")
    await plane.remove(pairs[0].connection_id)
    ours, theirs = zip(IPV4["one"], IPV6["one"], strict=True)
    ip = {"src_ip_addrs": [host(a) for a in ours], "dst_ip_addrs": [host(a) for a in theirs]}
    await plane.create(wire(client, ends[0], names=("one", "nse"), **ip), "one")
    await after.request(HTTP, DNS, name="one")
    assert set(tables(client)) == set(there) == {1, 2, 3}
    assert tables(client) == there
    for name in ("one", "two"):
        await after.close(name)
    assert nothing_is_left(client)
    await after.aclose()


async def test_wires_of_several_forwarders_in_one_namespace_do_not_meet(mesh):
    client = mesh[0]
    one, two = Connections(client), Connections(client)
    await one.request(DNS, name="one")
    await two.request(DNS, name="two")
    assert set(tables(client)) == {1, 2}
    assert rules(client) == [("all", "udp", 53)] * 2
    await one.close("one")
    assert set(tables(client)) == {2}
    await two.request(ANY, name="two")
    assert set(tables(client)) == {1}
    assert len(rules(client)) == 1
    await two.close("two")
    assert nothing_is_left(client)
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize("theirs", ["172.16.0.0/12", "172.17.0.0/16"])
async def test_a_table_that_another_process_takes_at_the_same_moment_is_left_to_it(
    mesh, connections, monkeypatch, theirs
):
    client, free = mesh[0], policy_tables._free

    def taken_meanwhile(taken, numbers):
        for number in free(taken, numbers):
            if number == 1:
                client.run("ip", "route", "add", theirs, "dev", "one", "table", "1", "proto", "110", "metric", "1")
            yield number

    monkeypatch.setattr(policy_tables, "_free", taken_meanwhile)
    await connections.request(DNS)
    assert tables(client) == {1: {(theirs, None)}, 2: {("172.16.0.0/12", "10.0.0.2")}}
    await connections.close()
    assert tables(client) == {1: {(theirs, None)}}


async def test_a_wire_that_was_made_anew_gets_its_policy_routes_again(mesh, connections):
    client, ends, plane, pairs = mesh
    await connections.request(HTTP, DNS)
    before, numbers = rules(client), set(tables(client))
    await plane.remove(pairs[1].connection_id)
    assert tables(client) == {}
    ours, theirs = IPV4["two"]
    await plane.create(
        wire(client, ends[1], names=("two", "nse"), src_ip_addrs=[host(ours)], dst_ip_addrs=[host(theirs)]), "two"
    )
    await connections.request(HTTP, DNS)
    assert (rules(client), set(tables(client))) == (before, numbers)
    await connections.close()
    assert nothing_is_left(client)


async def test_policies_that_somebody_took_apart_are_whole_again_by_the_same_tables(mesh, connections):
    """Nobody holds the namespace by then, and after the Close nothing is left in it."""
    client = mesh[0]
    await connections.request(DNS, HTTP, ICMP6)
    whole = rules(client), tables(client)
    store, element = connections.begin.stores()[0], connections.element
    while len(connections.kernel):
        await asyncio.sleep(0.01)
    client.run("ip", "-6", "rule", "flush", "protocol", "110")
    client.run("ip", "route", "flush", "table", "2")
    lost = await element.repair(store, do=False)
    assert [str(selector) for selector in lost] == [
        "from 10.0.0.3/32 ipproto 17 dport 80-90",
        "from fd00::3/128 ipproto 58",
    ]
    assert (rules(client), tables(client)) != whole
    assert await element.repair(store, do=True) == lost
    assert (rules(client), tables(client)) == whole
    assert await element.repair(store, do=True) == []
    await connections.close()
    assert nothing_is_left(client)


async def test_rules_go_with_the_connection_also_when_the_wire_is_gone_before(mesh, connections):
    client, _, plane, pairs = mesh
    await connections.request(HTTP, ICMP6)
    await plane.remove(pairs[1].connection_id)
    await connections.close()
    assert nothing_is_left(client)
    assert len(connections.kernel) == 0


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (PolicyRoute(proto="tcp"), r"policy route 2 \(proto tcp\) is invalid: 'tcp' is not an IP protocol"),
        (PolicyRoute(proto="300"), "'300' is not an IP protocol; expected a number up to 255"),
        (PolicyRoute(dst_port="90-80"), "'90-80' is not a port or range of ports"),
        (PolicyRoute(dst_port="0"), "'0' is not a port or range of ports"),
        (
            PolicyRoute(src_port="1-65536"),
            "'1-65536' is not a port or range of ports; expected 80 or 8000-8010, from 1 to 65535",
        ),
        (PolicyRoute(from_="10.0.0.300/32"), "'10.0.0.300/32' is not a prefix"),
        (PolicyRoute(routes=[Route(prefix="everywhere")]), "'everywhere' is not a prefix"),
        (
            PolicyRoute(routes=[Route(prefix="10.0.0.0/8", next_hop="fd00::2")]),
            "must be both IPv4 or both IPv6|both must",
        ),
        (PolicyRoute(routes=[Route(prefix="fd00::/8", next_hop="there")]), "next hop 'there' is not an IP address"),
        (PolicyRoute(from_="10.0.0.3/32", routes=[Route(prefix="fd00::/8")]), "must be both IPv4 or both IPv6"),
    ],
)
async def test_a_nonsense_policy_is_told_and_leaves_nothing(mesh, connections, policy, told):
    """And what was there before stays."""
    client = mesh[0]
    with pytest.raises(InvalidRequest, match=told):
        await connections.request(HTTP, policy)
    assert nothing_is_left(client)
    assert len(connections.chain.elements[0]) == 0
    await connections.request(HTTP)
    with pytest.raises(InvalidRequest, match=told):
        await connections.request(DNS, policy)
    assert rules(client) == [("10.0.0.3", "udp", (80, 90))]


async def test_what_the_kernel_refuses_leaves_nothing(mesh, connections):
    """A next hop that is the client's own address."""
    client = mesh[0]
    with pytest.raises(MeshError, match="the kernel refused to add route 10.9.0.0/16 to table"):
        await connections.request(HTTP, PolicyRoute(routes=[Route(prefix="10.9.0.0/16", next_hop="10.0.0.3")]))
    with pytest.raises(Conflict, match="there is no interface 'three'"):
        await connections.request(HTTP, name="three")
    with pytest.raises(InvalidRequest, match="there is no network namespace"):
        await connections.request(HTTP, path="/proc/1/ns/nothing")
    assert nothing_is_left(client)
    assert len(connections.kernel) == 0


async def test_connections_come_and_go_at_once(mesh, connections):
    client = mesh[0]
    policies = [PolicyRoute(dst_port=str(1000 + number)) for number in range(20)]
    await asyncio.gather(connections.request(*policies, name="one"), connections.request(*policies, name="two"))
    assert set(tables(client)) == {*range(1, 41)}  # one for each policy and wire, in both families
    await asyncio.gather(connections.close("one"), connections.close("two"))
    assert nothing_is_left(client)


async def test_rules_that_a_lost_wire_left_go_with_the_next_one(mesh):
    """Its endpoint went with the node's forwarder, so that nobody closed it."""
    client, ends, plane, _ = mesh
    everywhere = {"src_routes": [Route(prefix="0.0.0.0/0")], "src_ip_addrs": ["10.0.0.7/32"]}
    await plane.create(wire(client, ends[0], names=("three", "nse-3"), **everywhere), "three")
    client.run("ip", "link", "delete", "three")
    assert len(rules(client)) == 2
    connections = Connections(client)
    await connections.request()
    assert rules(client) == [("all", None, (None, None))]  # what all default routes share, which changes nothing
    await connections.aclose()
