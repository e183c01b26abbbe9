"""What policies mean: selectors, routes and families; in which order rules stand."""

import ipaddress

import pytest

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route
from nsm.chains.core import Exhausted, InvalidRequest
from nsm.forwarder_kernel import policy_tables
from nsm.forwarder_kernel.netlink.rules import Selector
from nsm.forwarder_kernel.policies import policies_of

FIRST_PRIORITY, LAST_PRIORITY = policy_tables.FIRST_PRIORITY, policy_tables.LAST_PRIORITY
NETWORK, ADDRESS = ipaddress.ip_network, ipaddress.ip_address
DEFAULT4, DEFAULT6 = NETWORK("0.0.0.0/0"), NETWORK("::/0")


def priorities_of(there):
    return policy_tables.priorities_of(there, FIRST_PRIORITY, LAST_PRIORITY)


def policies(*given, src=("10.0.0.1/32",), dst=("10.0.0.0/32", "fd00::/128")):
    return policies_of(IpContext(policies=list(given), src_ip_addrs=list(src), dst_ip_addrs=list(dst)))


def test_a_policy_without_routes_sends_everything_of_its_family_to_the_endpoint():
    assert policies(PolicyRoute(from_="10.0.0.1/32")) == {
        Selector(4, NETWORK("10.0.0.1/32")): {DEFAULT4: ADDRESS("10.0.0.0")}
    }
    assert policies(PolicyRoute(from_="fd00::1/128")) == {
        Selector(6, NETWORK("fd00::1/128")): {DEFAULT6: ADDRESS("fd00::")}
    }


@pytest.mark.parametrize(
    ("src", "families"), [([], [4]), (["fd00::1/128"], [6]), (["fd00::1/128", "10.0.0.1/32"], [4, 6])]
)
def test_a_policy_of_no_family_is_for_those_that_the_client_has(src, families):
    assert list(policies(PolicyRoute(dst_port="53"), src=src)) == [
        Selector(family, dst_ports=(53, 53)) for family in families
    ]


def test_the_family_is_that_of_the_routes_if_no_source_says_it():
    mixed = PolicyRoute(proto="6", routes=[Route(prefix="10.1.0.0/16"), Route(prefix="fd01::/64", next_hop="fd00::9")])
    assert policies(mixed) == {
        Selector(4, protocol=6): {NETWORK("10.1.0.0/16"): ADDRESS("10.0.0.0")},
        Selector(6, protocol=6): {NETWORK("fd01::/64"): ADDRESS("fd00::9")},
    }


def test_a_route_into_the_endpoints_own_network_needs_no_next_hop():
    policy = PolicyRoute(dst_port="80-81", routes=[Route(prefix="10.0.0.7/32")])
    assert policies(policy, dst=["10.0.0.1/24"]) == {Selector(4, dst_ports=(80, 81)): {NETWORK("10.0.0.7/32"): None}}


def test_policies_that_select_the_same_packets_are_one_and_the_order_stays():
    first = PolicyRoute(dst_port="80", routes=[Route(prefix="10.1.0.0/16")])
    second = PolicyRoute(src_port="7", routes=[Route(prefix="10.3.0.0/16")])
    third = PolicyRoute(dst_port="80-80", routes=[Route(prefix="10.2.0.0/16")])
    found = policies(first, second, third)
    assert list(found) == [Selector(4, dst_ports=(80, 80)), Selector(4, src_ports=(7, 7))]
    assert set(found[Selector(4, dst_ports=(80, 80))]) == {NETWORK("10.1.0.0/16"), NETWORK("10.2.0.0/16")}


def test_a_source_with_host_bits_means_its_whole_prefix():
    assert list(policies(PolicyRoute(from_="172.16.2.200/24"))) == [Selector(4, NETWORK("172.16.2.0/24"))]


def test_protocol_0_is_any():
    assert list(policies(PolicyRoute(proto="0"))) == [Selector(4)]


@pytest.mark.parametrize("text", ["²", "-1", "+6", " 6", "6.0", "999999", "0x6"])
def test_what_is_no_protocol(text):
    with pytest.raises(InvalidRequest, match="is no IP protocol"):
        policies(PolicyRoute(proto=text))


@pytest.mark.parametrize("text", ["-", "80-", "-80", "80-90-100", "80,90", "http", "²", "70000", "0-5"])
def test_what_is_no_range_of_ports(text):
    with pytest.raises(InvalidRequest, match="is no range of ports"):
        policies(PolicyRoute(src_port=text))


def test_priorities_grow_and_are_kept_where_that_is_possible():
    three = priorities_of([None] * 3)
    assert FIRST_PRIORITY <= three[0] < three[1] < three[2] <= LAST_PRIORITY
    first, second, third = three
    assert priorities_of([first, third]) == [first, third]
    before, *rest = priorities_of([None, second, third])
    assert before < second
    assert rest == [second, third]
    assert priorities_of([third, first])[0] == third
    assert priorities_of([]) == []


def test_priorities_are_given_anew_when_no_room_is_left():
    crowded = priorities_of([20000, None, 20001])
    assert crowded[0] < crowded[1] < crowded[2]
    with pytest.raises(Exhausted, match="do not fit between the priorities"):
        priorities_of([None] * (LAST_PRIORITY - FIRST_PRIORITY + 2))
    assert priorities_of([None] * (LAST_PRIORITY - FIRST_PRIORITY + 1)) == list(
        range(FIRST_PRIORITY, LAST_PRIORITY + 1)
    )
    there: list[int] = []
    for _ in range(40):
        there = priorities_of([*there, None])
        assert there == sorted(set(there))


def test_a_priority_that_is_not_of_the_range_is_not_kept():
    assert priorities_of([5, 32000]) == priorities_of([None, None])
