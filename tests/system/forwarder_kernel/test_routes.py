"""Routes of a wire in real namespaces: at either end, beside others' routes, after changes and restarts."""

from dataclasses import replace

import pytest

from nsm.apis.connectioncontext import Route
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import way, wire

pytestmark = pytest.mark.system

DUAL = {"src_ip_addrs": ["10.0.0.1/32", "fd00::1/128"], "dst_ip_addrs": ["10.0.0.0/32", "fd00::/128"]}


def routes(host):
    """Our routes: prefix and next hop."""
    found = [route for family in ("-4", "-6") for route in host.json(family, "route") if route.get("protocol") == "110"]
    return {(route["dst"], route.get("gateway")) for route in found}


def prefixes(*wanted):
    return [Route(prefix=prefix) for prefix in wanted]


async def test_each_end_has_its_routes_by_the_other_end(hosts, dataplane):
    client, endpoint = hosts
    src, dst = prefixes("172.16.0.0/12", "fd01::/64"), [*prefixes("192.168.0.0/16"), Route("fd02::/64", "fd00::9")]
    await dataplane.create(wire(client, endpoint, **DUAL, src_routes=src, dst_routes=dst), "c")
    assert routes(client) == {
        ("10.0.0.0", None),
        ("fd00::", None),
        ("172.16.0.0/12", "10.0.0.0"),
        ("fd01::/64", "fd00::"),
    }
    assert routes(endpoint) == {
        ("10.0.0.1", None),
        ("fd00::1", None),
        ("192.168.0.0/16", "10.0.0.1"),
        ("fd02::/64", "fd00::9"),
    }


async def test_a_refresh_changes_the_routes_that_changed_and_no_others(hosts, dataplane, watch):
    client, endpoint = hosts
    begin = {
        "src_routes": prefixes("172.16.0.0/12", "fd01::/64"),
        "dst_routes": prefixes("192.168.0.0/16", "fd02::/64"),
    }
    pair = await dataplane.create(wire(client, endpoint, **DUAL, **begin), "c")
    seen = watch(client), watch(endpoint)
    await dataplane.change(pair, wire(client, endpoint, **DUAL, **begin))
    assert [each.seen() for each in seen] == [[], []]
    less = {
        "src_routes": prefixes("172.16.0.0/12"),
        "dst_routes": prefixes("192.168.0.0/16", "fd02::/64", "10.7.0.0/16"),
    }
    await dataplane.change(pair, wire(client, endpoint, **DUAL, **less))
    assert [each.seen() for each in seen] == [["-route"], ["+route"]]
    assert ("fd01::/64", "fd00::") not in routes(client)
    moved = {**less, "src_routes": [Route("172.16.0.0/12", "10.0.0.9")]}
    await dataplane.change(pair, wire(client, endpoint, **DUAL, **moved))
    assert [each.seen() for each in seen] == [["+route", "-route"], []]
    assert routes(client) == {("10.0.0.0", None), ("fd00::", None), ("172.16.0.0/12", "10.0.0.9")}


async def test_what_somebody_else_removed_does_not_keep_a_refresh_from_working(hosts, dataplane):
    """Routes, addresses and neighbors."""
    client, endpoint = hosts
    pair = await dataplane.create(wire(client, endpoint, **DUAL, src_routes=prefixes("172.16.0.0/12")), "c")
    client.run("ip", "route", "delete", "172.16.0.0/12")
    client.run("ip", "address", "delete", "fd00::1/128", "dev", "nsm-1")
    client.run("ip", "neighbor", "delete", "10.0.0.0", "dev", "nsm-1")
    other = {"src_ip_addrs": ["10.0.0.3/32"], "dst_ip_addrs": ["10.0.0.2/32"]}
    await dataplane.change(pair, wire(client, endpoint, **other, src_routes=prefixes("172.20.0.0/16")))
    assert routes(client) == {("10.0.0.2", None), ("172.20.0.0/16", "10.0.0.2")}
    assert client.pings("10.0.0.2")


@pytest.mark.parametrize(
    ("own", "via", "address"),
    [("0.0.0.0/0", ["192.0.2.1"], "203.0.113.9"), ("::/0", ["2001:db8::1"], "2001:db8:9::9")],
    ids=["ipv4", "ipv6"],
)
async def test_a_route_of_the_workload_itself_comes_back_when_the_wire_goes(hosts, dataplane, own, via, address):
    """Such as the default route of a pod; the wire's comes first meanwhile."""
    client, endpoint = hosts
    client.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    client.run("ip", "link", "set", "eth0", "up")
    client.run("ip", "link", "set", "eth1", "up")
    client.run("ip", "address", "add", "192.0.2.2/24", "dev", "eth0")
    client.run("ip", "address", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
    client.run("ip", "route", "add", own, "via", *via, "dev", "eth0")
    assert way(client, address) == "eth0"
    pair = await dataplane.create(wire(client, endpoint, **DUAL, src_routes=prefixes(own)), "c")
    assert way(client, address) == "nsm-1"
    await dataplane.change(pair, wire(client, endpoint, **DUAL))
    assert way(client, address) == "eth0"
    await dataplane.change(pair, wire(client, endpoint, **DUAL, src_routes=prefixes(own)))
    await dataplane.remove(pair.connection_id)
    assert way(client, address) == "eth0"


async def test_wires_with_the_same_addresses_do_not_take_each_others_routes(hosts, dataplane):
    """As an awareness group may have them: when one goes, the other one works on."""
    client, endpoint = hosts
    same = {**DUAL, "src_routes": prefixes("172.16.0.0/12", "fd01::/64")}
    one = await dataplane.create(wire(client, endpoint, names=("one", "nse-1"), **same), "one")
    two = await dataplane.create(wire(client, endpoint, names=("two", "nse-2"), **same), "two")
    assert {way(client, address) for address in ("10.0.0.0", "172.16.9.9")} == {"two"}
    await dataplane.remove(two.connection_id)
    assert {way(client, address) for address in ("10.0.0.0", "172.16.9.9", "fd00::", "fd01::9")} == {"one"}
    assert client.pings("10.0.0.0")
    assert client.pings("fd00::")
    two = await dataplane.create(wire(client, endpoint, names=("two", "nse-2"), **same), "two")
    await dataplane.remove(one.connection_id)
    assert {way(client, address) for address in ("10.0.0.0", "172.16.9.9", "fd00::", "fd01::9")} == {"two"}
    assert client.pings("10.0.0.0")


async def test_of_two_wires_with_a_route_to_one_network_the_first_is_used_whichever_came_last(hosts, dataplane):
    """Never both in turn."""
    client, endpoint = hosts
    same = {**DUAL, "src_routes": prefixes("172.16.0.0/12", "fd01::/64")}
    names = [("one", "nse-1"), ("two", "nse-2")]
    wires = [replace(wire(client, endpoint, names=each, **same), order=n) for n, each in enumerate(names)]
    reached = ["10.0.0.0", "172.16.9.9", *(f"fd01::{n}" for n in range(1, 9))]
    for arrival in ([0, 1], [1, 0]):
        made = {n: await dataplane.create(wires[n], names[n][0]) for n in arrival}
        assert {way(client, address) for address in reached} == {"one"}
        await dataplane.remove(made[0].connection_id)
        assert {way(client, address) for address in reached} == {"two"}
        await dataplane.remove(made[1].connection_id)


async def test_a_forwarder_that_starts_again_removes_what_is_not_wanted_any_more(hosts, watch):
    """And touches nothing else."""
    client, endpoint = hosts
    before = {
        "src_ip_addrs": [*DUAL["src_ip_addrs"], "10.0.0.7/32"],
        "dst_ip_addrs": DUAL["dst_ip_addrs"],
        "src_routes": [*prefixes("172.16.0.0/12", "fd01::/64"), Route("172.30.0.0/16", "10.0.0.9")],
    }
    first = Dataplane("forwarder")
    await first.create(wire(client, endpoint, **before), "c")
    await first.aclose()
    seen = watch(client)
    second = Dataplane("forwarder")
    after = {**DUAL, "src_routes": prefixes("172.16.0.0/12", "172.30.0.0/16")}
    pair = await second.create(wire(client, endpoint, **after), "c")
    assert routes(client) == {
        ("10.0.0.0", None),
        ("fd00::", None),
        ("172.16.0.0/12", "10.0.0.0"),
        ("172.30.0.0/16", "10.0.0.0"),
    }
    addresses = {a["local"] for a in client.links()["nsm-1"]["addr_info"] if a["scope"] == "global"}
    assert addresses == {"10.0.0.1", "fd00::1"}
    # the two that are not wanted, the local route of an address, and the one with another next hop
    assert seen.seen() == ["+route", "-route", "-route", "-route"]
    await second.remove(pair.connection_id)
    await second.aclose()
