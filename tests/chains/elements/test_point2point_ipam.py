"""Addresses that clients exclude and name, as upstream's endpoints answer them."""

import asyncio
import contextlib
import random

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Exhausted, InvalidRequest, Unavailable
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Fail
from tests.chains.elements.addresses import FORMER, ask, close, prefixes, strict


def call(connection_id, **fields):
    context = ConnectionContext(ip_context=IpContext(**fields))
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, context=context)))


async def pair(chain, connection_id, **fields):
    """The last addresses of the answer: the endpoint's, the client's."""
    context = (await chain.request(call(connection_id, **fields))).context.ip_context
    return context.dst_ip_addrs[-1], context.src_ip_addrs[-1]


def chain_of(*prefixes, behind=()):
    return Chain([Begin(), Point2PointIpam(prefixes), *behind])


async def test_an_excluded_prefix_that_does_not_parse_excludes_nothing():
    odd = ["garbage", "", "10.0.0.0", "10.0.0.0/255.0.0.0", "fd00::1%eth0/64"]
    assert await pair(chain_of("10.0.0.0/30"), "a", excluded_prefixes=odd) == ("10.0.0.0/32", "10.0.0.1/32")


async def test_excluding_all_of_ipv6_excludes_ipv4_too():
    with pytest.raises(Exhausted, match="without ::/0"):
        await pair(chain_of("10.0.0.0/30"), "a", excluded_prefixes=["::/0"])


async def test_the_first_prefix_that_has_an_address_of_either_end_recovers_them():
    chain = chain_of("10.0.0.0/30", "10.1.0.0/30")
    named = {"src_ip_addrs": ["10.1.0.3/32", "10.0.0.3/32"], "dst_ip_addrs": ["10.1.0.2/32", "10.0.0.2/24"]}
    context = (await chain.request(call("a", **named))).context.ip_context
    assert [route.prefix for route in context.src_routes + context.dst_routes] == ["10.0.0.2/32", "10.0.0.3/32"]


async def test_nobody_gets_an_address_that_a_client_names_for_a_minute():
    chain = chain_of("10.0.0.0/29")
    assert await pair(chain, "a", excluded_prefixes=["10.0.0.1/32"]) == ("10.0.0.0/32", "10.0.0.2/32")
    named = {"src_ip_addrs": ["10.0.0.3/32"], "dst_ip_addrs": ["10.0.0.2/32"]}
    assert await pair(chain, "b", **named) == ("10.0.0.1/32", "10.0.0.4/32")
    assert await pair(chain, "c") == ("10.0.0.5/32", "10.0.0.6/32")
    await chain.close(call("b"))
    await asyncio.sleep(61)
    assert await pair(chain, "d") == ("10.0.0.1/32", "10.0.0.3/32")


async def test_an_address_that_a_failed_request_named_rests_for_a_minute():
    behind = Fail(Unavailable("no"))
    chain = chain_of("10.0.0.0/29", behind=[behind])
    with pytest.raises(Unavailable):
        await pair(chain, "a", src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["172.16.0.1/32"])
    assert await pair(chain, "b") == ("10.0.0.0/32", "10.0.0.2/32")
    await asyncio.sleep(61)
    assert await pair(chain, "c") == ("10.0.0.1/32", "10.0.0.3/32")


async def test_addresses_that_rest_do_not_exhaust_a_pool():
    """A client that finds no others gets those that have rested longest."""
    chain = chain_of("10.0.0.0/29")
    for number in (1, 3, 5, 7):
        with contextlib.suppress(Exhausted):
            named = {"src_ip_addrs": [f"10.0.0.{number}/32"], "dst_ip_addrs": ["172.16.0.1/32"]}
            await pair(chain, f"{number}", **named)
            await chain.close(call(f"{number}"))
    assert await pair(chain, "a") == ("10.0.0.0/32", "10.0.0.2/32")
    assert await pair(chain, "b") == ("10.0.0.4/32", "10.0.0.6/32")
    assert await pair(chain, "c") == ("10.0.0.1/32", "10.0.0.3/32")
    assert await pair(chain, "d") == ("10.0.0.5/32", "10.0.0.7/32")
    with pytest.raises(Exhausted):
        await pair(chain, "e")


async def test_addresses_that_cannot_be_replaced_stay_the_wires_own():
    chain = chain_of("10.0.0.0/30")
    await pair(chain, "a")
    with pytest.raises(Exhausted):
        await pair(chain, "a", excluded_prefixes=["10.0.0.0/8"])
    assert await pair(chain, "b") == ("10.0.0.2/32", "10.0.0.3/32")
    assert await pair(chain, "a") == ("10.0.0.0/32", "10.0.0.1/32")


async def test_a_replacement_that_fails_further_on_leaves_the_old_addresses():
    behind = Fail()
    chain = chain_of("10.0.0.0/29", behind=[behind])
    await pair(chain, "a")
    behind.errors = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await pair(chain, "a", excluded_prefixes=["10.0.0.1/32"])
    assert await pair(chain, "a") == ("10.0.0.0/32", "10.0.0.1/32")
    assert await pair(chain, "b") == ("10.0.0.2/32", "10.0.0.3/32")


async def test_a_replacement_frees_what_it_does_not_keep():
    chain = chain_of("10.0.0.0/29")
    await pair(chain, "a")
    assert await pair(chain, "a", excluded_prefixes=["10.0.0.1/32"]) == ("10.0.0.0/32", "10.0.0.2/32")
    assert await pair(chain, "b") == ("10.0.0.1/32", "10.0.0.3/32")
    await chain.close(call("a"))
    await chain.close(call("b"))
    assert await pair(chain, "c") == ("10.0.0.0/32", "10.0.0.1/32")


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_asked_no_two_wires_share_an_address_and_all_come_back(seed):
    chance, behind = random.Random(seed), Fail()
    chain = chain_of("10.0.0.0/29", "10.0.0.0/30", "fd00::/126", behind=[behind])
    some = [f"10.0.0.{n}/32" for n in range(8)] + ["fd00::1/128", "garbage"]
    excluded = ["10.0.0.0/30", "10.0.0.1/32", "10.0.0.4/31", "fd00::/127", "10.0.0.0/8", "::/0"]
    ipam, begin = chain.elements[1], chain.elements[0]
    for _ in range(60):
        behind.errors, connection_id = [Unavailable("no")] * (chance.random() < 0.2), chance.choice("abcde")
        if chance.random() < 0.3:
            await chain.close(call(connection_id))
            continue
        named = {side: chance.sample(some, chance.randrange(3)) for side in ("src_ip_addrs", "dst_ip_addrs")}
        with contextlib.suppress(Exhausted, Unavailable):
            await pair(chain, connection_id, excluded_prefixes=chance.sample(excluded, chance.randrange(3)), **named)
        leases = [store.get(ipam._lease) for store in begin.stores()]
        held = [taken for lease in leases for taken in lease.taken]
        assert len(held) == len(set(held)), "one pool gave one address to two"
    behind.errors = []
    for connection_id in "abcde":
        await chain.close(call(connection_id))
    await asyncio.sleep(61)
    for connection_id in "abcd":
        await pair(chain, connection_id)
    assert await pair(chain, "e") == ("10.0.0.0/32", "10.0.0.1/32"), "the second pool, whole"


async def test_addresses_come_back_when_a_request_fails_and_are_recovered_by_a_client_that_has_them():
    fail = Fail(Unavailable("no"))
    chain = Chain([Begin(), Point2PointIpam(["10.0.0.0/31"]), fail])
    with pytest.raises(Unavailable):
        await chain.request(call("a"))
    connection = await chain.request(call("b"))
    assert connection.context.ip_context.src_ip_addrs == ["10.0.0.1/32"]
    with pytest.raises(Exhausted, match=r"no two addresses are left in 10\.0\.0\.0/31"):
        await chain.request(call("c"))
    restarted = Chain([Begin(), Point2PointIpam(["10.0.0.0/24"])])
    again = await restarted.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
    assert again.context.ip_context == connection.context.ip_context
    other = await restarted.request(call("other"))
    assert other.context.ip_context.src_ip_addrs == ["10.0.0.3/32"]


async def test_an_address_is_given_back_once_and_never_to_two():
    chain = Chain([Begin(), Point2PointIpam(["10.0.0.0/29"])])
    await chain.request(call("a"))
    await asyncio.gather(chain.close(call("a")), chain.request(call("b")), chain.request(call("c")))
    assert len(chain.elements[0]) == 2
    taken = [
        ip
        for store in chain.elements[0].stores()
        for ip in (store.get(chain.elements[1]._lease).src, store.get(chain.elements[1]._lease).dst)
    ]
    assert len(set(taken)) == 4


def test_a_malformed_prefix_is_named():
    with pytest.raises(InvalidRequest, match="'10.0.0.0/99' is not a prefix"):
        Point2PointIpam(["10.0.0.0/99"])


async def test_a_polite_endpoint_adds_its_addresses_to_those_that_a_client_has():
    context = await ask(Chain([Begin(), Point2PointIpam(["10.0.0.0/24"])]), **FORMER)
    assert context.src_ip_addrs == ["172.16.1.1/32", "10.0.0.1/32"]
    assert context.dst_ip_addrs == ["172.16.1.0/32", "10.0.0.0/32"]
    assert prefixes(context.src_routes) == ["172.16.1.0/32", "192.168.0.0/16", "10.0.0.0/32"]


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
