"""What is done to an end of a wire that somebody changed: decisions only, no kernel."""

import ipaddress
from dataclasses import replace

import pytest

from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import End, Settings, Wire
from nsm.chains.netlink import Link
from nsm.chains.netlink.encoding import ROUTE_PROTOCOL, TABLE_MAIN
from nsm.chains.netlink.messages import AddressFound
from nsm.chains.netlink.rules import TableRoute
from nsm.forwarder_kernel import default_routes
from nsm.forwarder_kernel.repair import Seen, Wanted, repairs

INDEX, MAC, OTHER = 7, "02:00:00:00:00:01", "02:00:00:00:00:02"
IPV4, IPV6 = ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("fd00::1/128")
HOP, BEHIND = ipaddress.ip_address("10.0.0.2"), ipaddress.ip_network("172.16.0.0/12")
SETTINGS = Settings((IPV4, IPV6), ((BEHIND, HOP),), (HOP,), ())


def wanted(settings=SETTINGS, mtu=1400, **fields):
    wire = Wire(End(KernelInterface("/ns", "nsm-1"), settings), End(KernelInterface("/ns", "nse-1")), mtu, arp=False)
    return Wanted(INDEX, "nsm f c", wire, settings, OTHER, **fields)


def link(**fields):
    return Link(INDEX, "nsm-1", "nsm f c", MAC, fields.pop("mtu", 1400), 0, True, fields.pop("up", True), "veth", {})


def address(interface, advertised=False, index=INDEX):
    return AddressFound(index, interface, True, advertised)


def route(prefix, via=None, metric=0, protocol=ROUTE_PROTOCOL, table=TABLE_MAIN):
    return TableRoute(table, INDEX, prefix, via, metric, protocol)


KERNELS = route(IPV4.network, protocol=2)
SEEN = Seen(link(), [address(IPV4), address(IPV6)], [route(BEHIND, HOP), KERNELS], {HOP: OTHER})


def found(seen, want=None):
    return [(repair.kind, repair.found) for repair in repairs(want or wanted(), seen)]


def done(seen, want=None):
    return [message.about for repair in repairs(want or wanted(), seen) for message in repair.messages]


def test_a_wire_as_it_was_made_is_left_alone():
    assert found(SEEN) == []


def test_what_an_administrator_added_is_left_alone():
    foreign = ipaddress.ip_interface("192.0.2.1/24")
    more = replace(
        SEEN,
        addresses=[address(foreign), *SEEN.addresses],
        routes=[*SEEN.routes, route(ipaddress.ip_network("198.51.100.0/24"), HOP, protocol=3), route(BEHIND, HOP, 9)],
        neighbors={HOP: OTHER, ipaddress.ip_address("10.0.0.9"): MAC},
    )
    assert found(more) == []


def test_a_link_that_went_down_is_up_again_with_all_that_it_lost():
    lost = Seen(link(up=False), [address(IPV4)], [], {})
    assert [kind for kind, _ in found(lost)] == ["link", "address", "neighbor", "route"]
    first, *others = done(lost)
    assert first == "set the link up"
    assert f"add route {BEHIND}" in others
    assert f"add address {IPV6}" in others
    assert f"add address {IPV4}" not in others


def test_another_mtu_is_set_back_before_what_depends_on_it():
    small = replace(SEEN, link=link(mtu=1000), addresses=[address(IPV4)])
    assert found(small) == [("mtu", "MTU 1000"), ("address", "address fd00::1/128 gone")]
    assert done(small) == ["set MTU 1400", "add address fd00::1/128"]


def test_a_wire_without_an_mtu_of_its_own_has_that_of_its_kind():
    assert found(replace(SEEN, link=link(mtu=9000)), wanted(mtu=0)) == [("mtu", "MTU 9000")]
    assert found(replace(SEEN, link=link(mtu=1500)), wanted(mtu=0)) == []


def test_a_removed_address_comes_back_before_the_routes_that_went_with_it():
    lost = replace(SEEN, addresses=[address(IPV6)], routes=[])
    assert [kind for kind, _ in found(lost)] == ["address", "route"]
    assert done(lost) == [f"add address {IPV4}", f"add route {BEHIND}"]


def test_the_subnet_of_an_address_is_reachable_again_after_its_route_was_removed():
    cut = replace(SEEN, routes=[route(BEHIND, HOP)])
    assert found(cut) == [("route", "route 10.0.0.0/24 gone")]
    assert done(cut) == [f"remove address {IPV4}", f"add address {IPV4}", f"add route {BEHIND}"]


@pytest.mark.parametrize("there", [{}, {HOP: MAC}, {HOP: ""}])
def test_a_neighbor_that_was_removed_or_changed_has_the_hardware_address_of_the_other_end(there):
    (repair,) = repairs(wanted(), replace(SEEN, neighbors=there))
    assert (repair.kind, repair.found) == ("neighbor", "neighbor 10.0.0.2 gone")
    assert bytes.fromhex(OTHER.replace(":", "")) in repair.messages[0].data


@pytest.mark.parametrize("there", [[], [route(BEHIND, ipaddress.ip_address("10.0.0.9"))], [route(BEHIND, HOP, 0, 3)]])
def test_a_route_that_was_removed_or_replaced_comes_back(there):
    assert found(replace(SEEN, routes=[KERNELS, *there])) == [("route", "route 172.16.0.0/12 gone")]


def test_many_routes_are_not_all_named():
    prefixes = [ipaddress.ip_network(f"172.16.{number}.0/24") for number in range(7)]
    many = wanted(replace(SETTINGS, routes=tuple((prefix, HOP) for prefix in prefixes)))
    ((_, text),) = found(replace(SEEN, routes=[KERNELS]), many)
    assert text == "routes 172.16.0.0/24, 172.16.1.0/24, 172.16.2.0/24, 172.16.3.0/24 and 3 more gone"


def test_what_a_router_advertised_goes_unless_the_client_wants_it():
    learnt = ipaddress.ip_interface("2001:db8::5/64")
    default = route(ipaddress.ip_network("::/0"), ipaddress.ip_address("fe80::1"), 1024, 9)
    advertised = replace(
        SEEN, addresses=[*SEEN.addresses, address(learnt, advertised=True)], routes=[*SEEN.routes, default]
    )
    assert found(advertised) == [("advertisement", "address 2001:db8::5/64 by a router advertisement")]
    assert done(advertised) == [f"remove address {learnt}", "remove route ::/0 from table 254"]
    assert found(advertised, wanted(follows_advertisements=True)) == []


def test_rules_and_tables_of_a_default_route_come_back():
    everything = (ipaddress.ip_network("0.0.0.0/0"), HOP)
    want = wanted(replace(SETTINGS, routes=(everything,)))
    rules, tables = default_routes.wanted([], INDEX, (everything,), 0)
    in_main = route(everything[0], HOP, 2_000_000_000)
    whole = replace(SEEN, routes=[KERNELS, in_main, *tables], rules=rules)
    assert found(whole, want) == []
    assert [kind for kind, _ in found(replace(whole, rules=rules[:1]), want)] == ["rule"]
    assert [kind for kind, _ in found(replace(whole, routes=[KERNELS, in_main]), want)] == ["route"]


def test_the_mark_of_a_wire_is_written_again():
    unmarked = replace(SEEN, link=replace(link(), alias="mine"))
    assert found(unmarked) == [("alias", "alias 'mine'")]
