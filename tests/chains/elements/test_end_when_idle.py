"""Endpoints on demand end when nobody uses them."""

import asyncio

import pytest

from nsm.apis.connection import Path
from nsm.chains.core import Begin, Chain, Unavailable
from nsm.chains.elements.end_when_idle import EndWhenIdle
from nsm.chains.testing import Fail, call


class Endpoint:
    def __init__(self, *rest):
        self.ended = []
        self.idle = EndWhenIdle(15, lambda: self.ended.append(asyncio.get_running_loop().time()))
        self.chain = Chain([Begin(), self.idle, *rest])
        self.idle.start()


async def after(seconds, endpoint):
    await asyncio.sleep(seconds)
    return bool(endpoint.ended)


async def test_an_endpoint_that_nobody_ever_uses_ends():
    endpoint = Endpoint()
    assert not await after(14.9, endpoint)
    assert await after(0.2, endpoint)


async def test_an_endpoint_in_use_stays_and_ends_some_time_after_its_last_client():
    endpoint = Endpoint()
    await endpoint.chain.request(call("a", path=Path()))
    await endpoint.chain.request(call("b", path=Path()))
    await endpoint.chain.request(call("a", path=Path()))
    await endpoint.chain.close(call("a"))
    assert not await after(100, endpoint)
    await endpoint.chain.close(call("b"))
    assert not await after(14.9, endpoint)
    assert await after(0.2, endpoint)


async def test_a_client_that_fails_does_not_keep_it():
    endpoint = Endpoint(Fail(Unavailable("no addresses")))
    await asyncio.sleep(10)
    with pytest.raises(Unavailable):
        await endpoint.chain.request(call("a", path=Path()))
    assert not await after(14.9, endpoint)
    assert await after(0.2, endpoint)


async def test_a_client_that_comes_too_late_is_sent_to_others():
    endpoint = Endpoint()
    await asyncio.sleep(16)
    with pytest.raises(Unavailable, match="the endpoint has ended: it was not used for 15 s"):
        await endpoint.chain.request(call("a", path=Path()))
    assert endpoint.idle.has_ended
    await endpoint.chain.aclose()


async def test_an_endpoint_that_stops_for_another_reason_does_not_end_again():
    endpoint = Endpoint()
    await endpoint.chain.aclose()
    assert not await after(20, endpoint)


async def test_connections_that_are_no_use_do_not_keep_it():
    """As the wires between endpoints of a vL3: each would keep the others from ending."""
    asked = []

    async def use(call):
        asked.append(call.connection.id)
        return call.connection.id == "client"

    ended = []
    idle = EndWhenIdle(15, lambda: ended.append(True), use=use)
    chain = Chain([Begin(), idle])
    idle.start()
    await chain.request(call("client", path=Path()))
    await chain.request(call("other endpoint", path=Path()))
    await chain.request(call("other endpoint", path=Path()))
    assert asked == ["client", "other endpoint"]
    await asyncio.sleep(20)
    assert not ended
    await chain.close(call("client"))
    await asyncio.sleep(14)
    await chain.close(call("other endpoint"))
    await asyncio.sleep(1.1)
    assert ended
