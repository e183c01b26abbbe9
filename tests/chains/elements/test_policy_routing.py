"""Policy routes that an endpoint gives to its clients."""

import pytest
import structlog

from nsm.apis.connectioncontext import PolicyRoute, Route
from nsm.chains.core import Begin, Chain
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.policy_routing import PolicyRouting, policies_of
from nsm.chains.elements.strict_ipam import StrictIpam
from tests.chains.elements.addresses import again, ask

ONE = "{from: 172.16.2.201/24, proto: 17, dstport: 6666, srcport: 5555-5600}"
TWO = "{from: 172.16.2.200/24, routes: [{prefix: 172.16.3.0/24, nexthop: 172.16.2.200}, {prefix: 10.0.0.0/8}]}"
POLICY_ONE = PolicyRoute(from_="172.16.2.201/24", proto="17", dst_port="6666", src_port="5555-5600")
POLICY_TWO = PolicyRoute(
    from_="172.16.2.200/24",
    routes=[Route(prefix="172.16.3.0/24", next_hop="172.16.2.200"), Route(prefix="10.0.0.0/8")],
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.yaml"


def chain_with(file):
    ipam = Point2PointIpam(["10.0.0.0/24"])
    return Chain([Begin(), ipam, StrictIpam([ipam]), PolicyRouting(str(file))])


async def test_clients_get_the_policies_of_the_file_and_the_addresses_that_they_are_from(file):
    file.write_text(f"[{ONE}, {TWO}]")
    context = await ask(chain_with(file))
    assert context.policies == [POLICY_ONE, POLICY_TWO]
    assert context.src_ip_addrs == ["10.0.0.1/32", "172.16.2.201/24", "172.16.2.200/24"]


async def test_what_is_taken_out_of_the_file_goes_with_its_address(file):
    """Also after a restart of the endpoint, and the client's own addresses stay."""
    file.write_text(f"[{ONE}, {TWO}, {{from: 10.0.0.1/32, proto: 6}}]")
    chain = chain_with(file)
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.1/32", "172.16.2.201/24", "172.16.2.200/24"]
    assert await again(chain, context) == context
    file.write_text(f"[{TWO}]")
    context = await again(chain, context)
    assert context.policies == [POLICY_TWO]
    assert context.src_ip_addrs == ["10.0.0.1/32", "172.16.2.200/24"]
    polite = Chain([Begin(), Point2PointIpam(["10.0.0.0/24"]), PolicyRouting(str(file))])
    file.unlink()
    context = await again(polite, context)
    assert (context.policies, context.src_ip_addrs) == ([], ["10.0.0.1/32"])


async def test_policies_of_clients_do_not_touch_each_other(file):
    """Nor does what is done to a message change what the file says."""
    file.write_text(f"[{TWO}]")
    chain = chain_with(file)
    one = await ask(chain, "one")
    one.policies[0].routes.clear()
    assert (await ask(chain, "two")).policies == [POLICY_TWO]


async def test_a_policy_that_cannot_be_is_told_and_the_last_good_ones_stay(file):
    file.write_text(f"[{ONE}]")
    chain = chain_with(file)
    await ask(chain, "a")
    file.write_text(f"[{ONE}, {{dstport: 99999}}]")
    with structlog.testing.capture_logs() as logs:
        assert (await ask(chain, "b")).policies == [POLICY_ONE]
    assert "policy 2: '99999' is not a port or range of ports" in logs[0]["error"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"from": "10.0.0.1/32"}, r"expected a list such as \["),
        (["10.0.0.1/32"], r"policy 1: expected a list such as \["),
        ([{"dport": 80}], "policy 1: dport is not a field of a policy; expected dstport"),
        (
            [{"colour": 80}],
            "policy 1: colour is not a field of a policy; expected dstport, from, proto, routes or srcport",
        ),
        ([{"routes": [{"prefix": "10.0.0.0/8", "next_hop": ""}]}], r"routes\[0\].next_hop is not a field .* nexthop"),
        ([{"routes": {"prefix": "10.0.0.0/8"}}], "policy 1: routes is {.*}; expected a list"),
        ([{"routes": ["10.0.0.0/8"]}], "policy 1: expected a list such as"),
        ([{}, {"proto": "tcp"}], "policy 2: 'tcp' is not an IP protocol"),
        ([{"proto": True}], "policy 1: proto is True; expected a text or a number"),
        ([{"from": "10.0.0.300/32"}], "policy 1: '10.0.0.300/32' is not a prefix"),
        ([{"routes": [{"nexthop": "10.0.0.1"}]}], "policy 1: '' is not a prefix"),
        ([{"routes": [{"prefix": "10.0.0.0/8", "nexthop": "fd00::1"}]}], "both must be IPv4 or both IPv6"),
        ([{"from": "10.0.0.1/32", "routes": [{"prefix": "fd00::/8"}]}], "must be both IPv4 or both IPv6"),
    ],
)
def test_what_are_no_policies(document, told):
    with pytest.raises(ValueError, match=told):
        policies_of(document)
