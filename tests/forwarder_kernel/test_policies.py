"""What policies mean: selectors, routes and families."""

import ipaddress

import pytest

from nsm.apis.connectioncontext import IpContext, PolicyRoute, Route
from nsm.chains.core import InvalidRequest
from nsm.chains.netlink.rules import Selector
from nsm.forwarder_kernel.policies import policies_of

NETWORK, ADDRESS = ipaddress.ip_network, ipaddress.ip_address
DEFAULT4, DEFAULT6 = NETWORK("0.0.0.0/0"), NETWORK("::/0")


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
    with pytest.raises(InvalidRequest, match="is not an IP protocol"):
        policies(PolicyRoute(proto=text))


@pytest.mark.parametrize("text", ["-", "80-", "-80", "80-90-100", "80,90", "http", "²", "70000", "0-5"])
def test_what_is_no_range_of_ports(text):
    with pytest.raises(InvalidRequest, match="is not a port or range of ports"):
        policies(PolicyRoute(src_port=text))


def test_on_frames_a_policy_without_routes_leads_to_the_link_as_upstreams_does():
    """That is so for IPv4 only; one with routes names its next hop."""
    given = [PolicyRoute(dst_port="53"), PolicyRoute(dst_port="54", routes=[Route(prefix="10.9.0.0/16")])]
    context = IpContext(policies=given, src_ip_addrs=["10.0.0.1/32", "fd00::1/128"], dst_ip_addrs=["10.0.0.0/32"])
    context.dst_ip_addrs.append("fd00::/128")
    assert list(policies_of(context, has_frames=True).values()) == [
        {DEFAULT4: None},
        {DEFAULT6: ADDRESS("fd00::")},
        {NETWORK("10.9.0.0/16"): ADDRESS("10.0.0.0")},
    ]
