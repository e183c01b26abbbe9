"""How many connections one client may have."""

import asyncio

import pytest

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Exhausted, Limits, Peer
from nsm.chains.elements.limit_connections import LimitConnections
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.policy import NO_TRUST, IdPatterns, Trust

THREE = Limits(client_connections=3)
VOUCHING = Trust(intermediaries=IdPatterns(["spiffe://a.org/nsmgr"]))


class Authorized(Element):
    """Stands where authorize does: the call's `origin` is told."""

    async def request(self, call, rest):
        call.origin = call.owner[-1]
        return await rest.request(call)


def call(connection_id, *owner):
    request = NetworkServiceRequest(connection=Connection(id=connection_id))
    made = Call(request, peer=Peer(owner[-1], b""))
    made.owner = owner
    return made


def server(*elements, limits=THREE, trust=VOUCHING):
    return Chain([Begin(), Authorized(), LimitConnections(limits, trust, elements), *elements])


async def test_a_client_gets_its_share_and_others_theirs():
    chain = server()
    for number in range(3):
        await chain.request(call(f"a{number}", "spiffe://a.org/greedy"))
    with pytest.raises(Exhausted, match="greedy has 3 connections here.*NSM_LIMITS=client_connections"):
        await chain.request(call("a3", "spiffe://a.org/greedy"))
    await chain.request(call("b", "spiffe://a.org/modest"))
    await chain.request(call("a0", "spiffe://a.org/greedy"))  # a refresh is none more


async def test_what_ends_makes_room():
    chain = server(limits=Limits(client_connections=1))
    for _ in range(3):
        await chain.request(call("a", "spiffe://a.org/client"))
        with pytest.raises(Exhausted):
            await chain.request(call("b", "spiffe://a.org/client"))
        await chain.close(call("a", "spiffe://a.org/client"))


async def test_a_client_s_connections_take_so_many_bytes_and_no_more():
    """What a component keeps of a connection is as long as its request: a thousand long ones took hundreds of MiB."""

    def long(connection_id, size, who="greedy"):
        made = call(connection_id, f"spiffe://a.org/{who}")
        made.size = size
        return made

    chain = server(limits=Limits(client_bytes=100))
    await chain.request(long("a", 60))
    with pytest.raises(Exhausted, match="greedy take 60 bytes here, and this one 50.*NSM_LIMITS=client_bytes"):
        await chain.request(long("b", 50))
    await chain.request(long("a", 70))
    with pytest.raises(Exhausted):
        await chain.request(long("a", 101))
    await chain.request(long("a", 10))
    await chain.request(long("b", 50))
    await chain.request(long("c", 100, "modest"))
    await chain.close(long("b", 0))
    await chain.request(long("d", 90))
    limiter = next(each for each in chain.elements if isinstance(each, LimitConnections))
    for connection_id in ("a", "d"):
        await chain.close(long(connection_id, 0))
    assert dict(limiter._bytes) == {"spiffe://a.org/modest": 100}


async def test_no_client_takes_all_of_an_endpoint_s_pool():
    """Of the 128 pairs of a /24 it gets 96."""
    chain = server(Point2PointIpam(["10.0.0.0/24"]), limits=Limits())
    for number in range(96):
        await chain.request(call(f"a{number}", "spiffe://a.org/greedy"))
    with pytest.raises(Exhausted, match="has 96 connections here, and the rest is for others"):
        await chain.request(call("one-more", "spiffe://a.org/greedy"))
    for number in range(32):
        await chain.request(call(f"b{number}", f"spiffe://a.org/{number}"))


async def test_a_small_pool_may_be_one_client_s():
    chain = server(Point2PointIpam(["10.0.0.0/28"]), limits=Limits())
    for number in range(8):
        await chain.request(call(f"a{number}", "spiffe://a.org/only"))
    with pytest.raises(Exhausted, match="no two addresses are left"):
        await chain.request(call("one-more", "spiffe://a.org/only"))


@pytest.mark.parametrize(("trust", "counted"), [(VOUCHING, True), (NO_TRUST, False)], ids=["known", "nobody known"])
async def test_clients_that_nobody_tells_apart_are_not_taken_for_one(trust, counted):
    """Behind a manager that is not known to vouch, all clients look alike: it limits them itself."""
    chain = server(limits=Limits(client_connections=1), trust=trust)
    await chain.request(call("a", "spiffe://a.org/one", "spiffe://a.org/other-nsmgr"))
    second = call("b", "spiffe://a.org/two", "spiffe://a.org/other-nsmgr")
    if counted:
        with pytest.raises(Exhausted):
            await chain.request(second)
    else:
        await chain.request(second)


class Slow(Element):
    """Answers when it is told to."""

    def __init__(self):
        self.go, self.asked = asyncio.Event(), 0

    async def request(self, call, rest):
        self.asked += 1
        await self.go.wait()
        return await rest.request(call)

    async def close(self, call, rest):
        await self.request(call, rest)


async def test_calls_of_one_client_that_get_no_answer_leave_room_for_those_of_others():
    slow = Slow()
    chain = server(slow, limits=Limits(client_calls=2))
    calls = [asyncio.ensure_future(chain.request(call(f"a{n}", "spiffe://a.org/greedy"))) for n in range(5)]
    await asyncio.sleep(0.01)
    assert slow.asked == 2
    calls.append(asyncio.ensure_future(chain.request(call("b", "spiffe://a.org/modest"))))
    await asyncio.sleep(0.01)
    assert slow.asked == 3
    calls[3].cancel()
    slow.go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert slow.asked == 5
    await chain.close(call("a0", "spiffe://a.org/greedy"))
