"""Addresses: pairs, groups, the two policies, and a shared segment."""

import asyncio

import pytest

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Exhausted, InvalidRequest, Unavailable
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.testing import Fail
from tests.chains.elements.addresses import again, ask


async def close(chain, connection_id="c"):
    await chain.close(Call(NetworkServiceRequest(connection=Connection(id=connection_id))))


def prefixes(routes):
    return [route.prefix for route in routes]


FORMER = {
    "src_ip_addrs": ["172.16.1.1/32"],
    "dst_ip_addrs": ["172.16.1.0/32"],
    "src_routes": [Route(prefix="172.16.1.0/32"), Route(prefix="192.168.0.0/16", next_hop="172.16.1.0")],
    "dst_routes": [Route(prefix="172.16.1.1/32"), Route(prefix="10.77.0.0/16")],
}
"""What a client brings from the endpoint that it was at before."""


def strict(*groups):
    ipams = [Point2PointIpam(group) for group in groups]
    return Chain([Begin(), *ipams, StrictIpam(ipams)])


# --- policies


async def test_a_polite_endpoint_adds_its_addresses_to_those_that_a_client_has():
    context = await ask(Chain([Begin(), Point2PointIpam(["10.0.0.0/24"])]), **FORMER)
    assert context.src_ip_addrs == ["172.16.1.1/32", "10.0.0.1/32"]
    assert context.dst_ip_addrs == ["172.16.1.0/32", "10.0.0.0/32"]
    assert prefixes(context.src_routes) == ["172.16.1.0/32", "192.168.0.0/16", "10.0.0.0/32"]


async def test_a_strict_endpoint_takes_all_others_away_with_their_routes():
    context = await ask(strict(["10.0.0.0/24"]), **FORMER)
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.1/32"], ["10.0.0.0/32"])
    assert prefixes(context.src_routes) == ["10.0.0.0/32"]
    assert prefixes(context.dst_routes) == ["10.0.0.1/32"]


async def test_a_strict_endpoint_lets_a_client_have_its_own_addresses_again():
    """When it refreshes, and after a restart of the endpoint."""
    chain = strict(["10.0.0.0/24"])
    await ask(chain, "other")
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.3/32"]
    assert await again(chain, context) == context
    restarted = strict(["10.0.0.0/24"])
    assert await again(restarted, context) == context
    assert (await ask(restarted, "new")).src_ip_addrs == ["10.0.0.1/32"]


async def test_a_strict_endpoint_takes_away_what_another_client_has():
    """And what only looks like its own: free, but not given."""
    chain = strict(["10.0.0.0/24"])
    first = await ask(chain, "first")
    context = await ask(
        chain,
        "second",
        src_ip_addrs=[*first.src_ip_addrs, "10.0.0.99/32", "nonsense"],
        dst_ip_addrs=first.dst_ip_addrs,
        src_routes=first.src_routes,
        dst_routes=[*first.dst_routes, Route(prefix="10.0.0.99/32")],
    )
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.3/32"], ["10.0.0.2/32"])
    assert (prefixes(context.src_routes), prefixes(context.dst_routes)) == (["10.0.0.2/32"], ["10.0.0.3/32"])


async def test_addresses_that_a_strict_endpoint_had_to_replace_are_gone():
    chain = strict(["10.0.0.0/24"])
    context = await ask(chain)
    context = await again(chain, context, excluded_prefixes=["10.0.0.0/30"])
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.5/32"], ["10.0.0.4/32"])
    assert prefixes(context.src_routes) == ["10.0.0.4/32"]


# --- groups


@pytest.mark.parametrize("chain_of", [lambda g: Chain([Begin(), *map(Point2PointIpam, g)]), lambda g: strict(*g)])
async def test_each_group_gives_a_pair_so_two_groups_are_dual_stack(chain_of):
    context = await ask(chain_of((["10.0.0.0/31", "10.1.0.0/24"], ["fd00::/64"])))
    assert context.src_ip_addrs == ["10.0.0.1/32", "fd00::1/128"]
    assert context.dst_ip_addrs == ["10.0.0.0/32", "fd00::/128"]
    assert prefixes(context.src_routes) == ["10.0.0.0/32", "fd00::/128"]


async def test_a_group_goes_on_with_its_next_prefix_and_a_full_group_frees_what_others_gave():
    chain = strict(["fd00::/64"], ["10.0.0.0/31", "10.1.0.0/31"])
    assert (await ask(chain, "a")).src_ip_addrs == ["fd00::1/128", "10.0.0.1/32"]
    assert (await ask(chain, "b")).src_ip_addrs == ["fd00::3/128", "10.1.0.1/32"]
    with pytest.raises(Exhausted, match=r"no two addresses are left in 10\.0\.0\.0/31, 10\.1\.0\.0/31"):
        await ask(chain, "c")
    await close(chain, "a")
    assert (await ask(chain, "d")).src_ip_addrs == ["fd00::1/128", "10.0.0.1/32"]


# --- a segment


async def test_clients_of_a_segment_get_an_address_each_with_the_length_of_the_prefix():
    """None is that of the endpoint or the broadcast address, and the endpoint's end has none."""
    chain = Chain([Begin(), SinglePointIpam(["10.0.0.0/29"])])
    contexts = [await ask(chain, str(number)) for number in range(6)]
    assert [c.src_ip_addrs for c in contexts] == [[f"10.0.0.{n}/29"] for n in range(1, 7)]
    assert contexts[0] == IpContext(src_ip_addrs=["10.0.0.1/29"])
    with pytest.raises(Exhausted, match=r"no address is left in 10\.0\.0\.0/29"):
        await ask(chain, "one too many")
    await close(chain, "2")
    assert (await ask(chain, "later")).src_ip_addrs == ["10.0.0.3/29"]


@pytest.mark.parametrize(
    ("prefix", "addresses"),
    [("fd00::/126", ["fd00::1/126", "fd00::2/126", "fd00::3/126"]), ("10.0.0.0/31", ["10.0.0.1/31"])],
)
async def test_where_there_is_no_broadcast_address_the_last_one_is_used(prefix, addresses):
    chain = Chain([Begin(), SinglePointIpam([prefix])])
    for number, address in enumerate(addresses):
        assert (await ask(chain, str(number))).src_ip_addrs == [address]
    with pytest.raises(Exhausted):
        await ask(chain, "one too many")


async def test_an_address_of_a_segment_is_kept_recovered_replaced_and_given_back():
    fail = Fail(Unavailable("no"))
    ipam = SinglePointIpam(["10.0.0.0/24", "10.1.0.0/24"])
    chain = Chain([Begin(), ipam, StrictIpam([ipam]), fail])
    with pytest.raises(Unavailable):
        await ask(chain)
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.1/24"]
    assert await again(chain, context) == context
    assert (await again(chain, context, excluded_prefixes=["10.0.0.0/24"])).src_ip_addrs == ["10.1.0.1/24"]
    other = Chain([Begin(), SinglePointIpam(["10.0.0.0/24"])])
    assert (await ask(other, "d", src_ip_addrs=["10.0.0.7/24"])).src_ip_addrs == ["10.0.0.7/24"]
    assert (await ask(other, "e", src_ip_addrs=["10.0.0.7/24"])).src_ip_addrs == ["10.0.0.7/24", "10.0.0.1/24"]
    await asyncio.gather(close(other, "d"), close(other, "e"))
    for number in range(254):  # all of the prefix but the endpoint's and the broadcast address
        await ask(other, str(number))


def test_a_malformed_prefix_of_a_segment_is_named():
    with pytest.raises(InvalidRequest, match="'10.0.0.0/99' is not a prefix"):
        SinglePointIpam(["10.0.0.0/99"])
