"""How nodes reach each other over links: the shortest way, in both directions."""

import ipaddress

import pytest

from nsm.mesh.model import Link
from nsm.mesh.routing import crossings, hops_of, reachable


def link(network, *nodes):
    return Link(nodes, ipaddress.ip_network(network))


CHAIN = [link("10.0.1.0/24", "a", "b"), link("10.0.2.0/24", "b", "c"), link("10.0.3.0/24", "c", "d")]
RING = [*CHAIN, link("10.0.4.0/24", "d", "a")]


def test_a_node_knows_the_next_one_to_every_link_that_it_is_not_at():
    hops = {str(hop.network): (hop.node, str(hop.via)) for hop in hops_of(CHAIN, "a")}
    assert hops == {"10.0.2.0/24": ("b", "10.0.1.2"), "10.0.3.0/24": ("b", "10.0.1.2")}
    assert hops_of(CHAIN[:1], "a") == set()


def test_in_a_ring_packets_go_the_short_way_round():
    assert {str(h.network): h.node for h in hops_of(RING, "a")} == {"10.0.2.0/24": "b", "10.0.3.0/24": "d"}


def test_the_links_on_the_way_are_told_in_their_order():
    names = [(str(each.network), one, other) for each, one, other in crossings(CHAIN, "d", "a")]
    assert names == [("10.0.3.0/24", "d", "c"), ("10.0.2.0/24", "c", "b"), ("10.0.1.0/24", "b", "a")]
    assert list(crossings(CHAIN, "a", "a")) == []


def test_who_is_not_joined_is_not_reached():
    assert list(reachable(CHAIN, "b")) == ["b", "a", "c", "d"]
    assert list(reachable([*CHAIN, link("10.9.0.0/24", "x", "y")], "x")) == ["x", "y"]


def test_a_link_of_many_nodes_gives_each_the_next_address_also_in_ipv6():
    wide = link("fd00:7::/64", "a", "b", "c")
    assert [str(wide.interface_of(name)) for name in wide.nodes] == [f"fd00:7::{n}/64" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("network", "addresses"),
    [
        ("172.16.7.0/31", ["172.16.7.0/31", "172.16.7.1/31"]),
        ("fd00:7::/127", ["fd00:7::/127", "fd00:7::1/127"]),
        ("172.16.7.0/30", ["172.16.7.1/30", "172.16.7.2/30"]),
    ],
)
def test_a_link_of_two_addresses_joins_two_nodes(network, addresses):
    both = link(network, "a", "b")
    assert [str(both.interface_of(name)) for name in both.nodes] == addresses
    assert both.room == 2
