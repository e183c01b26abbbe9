"""A wire, as its connection and its two sides describe it."""

import ipaddress

import pytest

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, EthernetContext, IpContext, PolicyRoute, Route
from nsm.chains.core import InvalidRequest
from nsm.chains.forwarding.sides import Breakout, KernelInterface, Memif, Nothing, Vxlan, Wireguard
from nsm.chains.forwarding.wires import wire_of

NEAR, FAR = KernelInterface("/ns/a", "nsm-1"), KernelInterface("/ns/b", "nse-1")
HERE, THERE = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")
VXLAN = Vxlan(7, HERE, 4789, THERE, 4789)
WIREGUARD = Wireguard(b"", 51820, b"", THERE, 51820, 1440, is_client=True)
CLIENTS, ENDPOINTS = ipaddress.ip_interface("10.0.0.1/32"), ipaddress.ip_interface("10.0.0.0/32")


def connection(payload="IP", mtu=0, ethernet=None, **ip):
    addresses = {"src_ip_addrs": [str(CLIENTS)], "dst_ip_addrs": [str(ENDPOINTS)], **ip}
    context = ConnectionContext(ip_context=IpContext(**addresses), mtu=mtu, ethernet_context=ethernet)
    return Connection(id="nsc-3", payload=payload, context=context)


def test_each_side_has_its_own_settings_whatever_kind_it_is():
    for sides in ((NEAR, FAR), (NEAR, VXLAN), (Memif("@/m", ""), FAR), (VXLAN, Memif("@/m", "")), (NEAR, Nothing())):
        wire = wire_of(connection(), *sides)
        assert wire.sides == sides
        assert (wire.client.settings.addresses, wire.endpoint.settings.addresses) == ((CLIENTS,), (ENDPOINTS,))
        assert (wire.client.is_endpoints, wire.endpoint.is_endpoints, wire.order) == (False, True, 3)


@pytest.mark.parametrize(
    ("sides", "local", "interfaces", "tunnel"),
    [
        ((NEAR, FAR), 2, (NEAR, FAR), None),
        ((NEAR, VXLAN), 1, (NEAR,), VXLAN),
        ((VXLAN, FAR), 1, (FAR,), VXLAN),
        ((Memif("@/m", ""), Memif("@/n", "")), 2, (), None),
        ((NEAR, Nothing()), 1, (NEAR,), Nothing()),
        ((VXLAN, Breakout("eth1", 5)), 0, (), Breakout("eth1", 5)),
    ],
)
def test_which_sides_are_on_this_node(sides, local, interfaces, tunnel):
    wire = wire_of(connection(), *sides)
    assert (len(wire.ends), wire.interfaces, wire.tunnel) == (local, interfaces, tunnel)
    assert tuple(end.side for end in wire.kernel_ends) == interfaces


def test_a_bare_interface_has_neighbors_and_nothing_else_of_the_connection():
    """Its holder passes packets on; the other side is as always."""
    routes = {
        "src_routes": [Route(prefix="10.1.0.0/16", next_hop="10.0.0.0")],
        "dst_routes": [Route(prefix="10.0.0.1/32")],
    }
    bare = KernelInterface("/ns/b", "in-1a2b3c4d", is_bare=True, joint="br-1a2b3c4d")
    wire = wire_of(connection(**routes), NEAR, bare)
    assert (wire.endpoint.settings.addresses, wire.endpoint.settings.routes) == ((), ())
    assert wire.endpoint.settings.neighbors == (CLIENTS.ip,)
    assert wire.endpoint.settings.joint == "br-1a2b3c4d"
    assert len(wire.client.settings.routes) == 2
    assert wire.client.settings.joint == ""


def test_only_a_pair_that_carries_packets_knows_its_opposite_as_a_neighbor():
    """It has no ARP; a tunnel of packets has no hardware addresses."""
    for payload, sides, neighbors in (
        ("IP", (NEAR, FAR), (ENDPOINTS.ip,)),
        ("ETHERNET", (NEAR, FAR), ()),
        ("IP", (NEAR, WIREGUARD), ()),
    ):
        assert wire_of(connection(payload), *sides).client.settings.neighbors == neighbors


def test_the_ethernet_context_gives_hardware_addresses_and_a_tag():
    ethernet = EthernetContext(src_mac="0A:55:44:33:22:00", dst_mac="0a:55:44:33:22:11", vlan_tag=100)
    wire = wire_of(connection(ethernet=ethernet), NEAR, Nothing())
    assert (wire.client.settings.mac, wire.endpoint.settings.mac) == ("0a:55:44:33:22:00", "0a:55:44:33:22:11")
    assert wire.vlan == 100
    assert wire_of(connection(), NEAR, FAR).vlan == 0


def test_an_endpoint_answers_for_all_if_a_policy_of_its_client_sends_all_to_the_link():
    policies = [PolicyRoute(from_="10.0.0.1/32")]
    wire = wire_of(connection("ETHERNET", policies=policies), NEAR, FAR)
    assert (wire.client.settings.proxy_arp, wire.endpoint.settings.proxy_arp) == (False, True)


def test_a_wire_moves_with_its_settings():
    wire = wire_of(connection(), NEAR, FAR)
    moved = wire.moved(KernelInterface("/ns/c", "nsm-1"), VXLAN)
    assert moved.sides == (KernelInterface("/ns/c", "nsm-1"), VXLAN)
    assert [end.settings for end in (moved.client, moved.endpoint)] == [wire.client.settings, wire.endpoint.settings]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mtu": 7}, "MTU 7 is out of range; expected 68 to 65535"),
        ({"mtu": 1200, "src_ip_addrs": ["fd00::1/128"]}, "MTU 1200 is too small for the wire's IPv6 addresses"),
        ({"src_ip_addrs": ["10.0.0.999/32"]}, "'10.0.0.999/32' is not an address with a prefix length"),
        ({"src_routes": [Route(prefix="1.2.3.0/24", next_hop="fd00::1")]}, "both must be IPv4 or both IPv6"),
        ({"src_routes": [Route(prefix="nonsense")]}, "'nonsense' is not an address with a prefix length"),
    ],
)
def test_what_cannot_be_a_wire_is_refused_before_the_dataplane_is_asked(change, told):
    with pytest.raises(InvalidRequest, match=told):
        wire_of(connection(**change), NEAR, FAR)
