"""An endpoint that leaves a client only the addresses that it gives itself."""

from nsm.apis.connectioncontext import Route
from nsm.chains.core import Begin, Chain
from nsm.chains.elements.strict_ipam import StrictIpam
from tests.chains.elements.addresses import FORMER, again, ask, prefixes, strict


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


async def test_an_endpoint_that_gives_no_addresses_and_is_strict_leaves_none():
    context = await ask(Chain([Begin(), StrictIpam([])]), **FORMER)
    assert (context.src_ip_addrs, context.dst_ip_addrs) == ([], [])
    assert (prefixes(context.src_routes), prefixes(context.dst_routes)) == ([], [])
