"""Whom a component asks when those whom it asked before are elsewhere, or somebody else is to be asked."""

import asyncio

import pytest

from nsm.apis.connection import Connection, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable
from nsm.chains.elements.dial import ClientUrl, Dial
from nsm.chains.elements.monitor import Monitor
from nsm.chains.testing import Record
from nsm.chains.transport import Monitors

HERE, THERE = "unix:///proc/1/fd/7", "unix:///proc/1/fd/9"


class Peers(Element):
    """Answers at every target, and notes what was closed where."""

    def __init__(self):
        self.closed = []

    async def request(self, call, rest):
        call.connection.network_service_endpoint_name = call.connection.network_service_endpoint_name or "a"
        return await rest.request(call)

    async def close(self, call, rest):
        self.closed.append(call.target)


class Events:
    """The monitors of the peers: each can be ended."""

    def __init__(self):
        self.ended = {HERE: asyncio.Event(), THERE: asyncio.Event()}

    async def __call__(self, target, selector):
        await self.ended[target].wait()
        raise Unavailable(f"{target} went away")
        yield


def asking(target, endpoint=""):
    path = Path(index=0, path_segments=[PathSegment(name="me", id="c")])
    connection = Connection(id="c", path=path, network_service_endpoint_name=endpoint)
    return Call(NetworkServiceRequest(connection=connection), target=target)


@pytest.mark.parametrize(
    ("is_heard", "endpoint", "closed"),
    [
        (False, "a", []),  # the same endpoint in a new process: it may know the wire still
        (True, "a", [HERE]),  # it is in two places: the former has to let go
        (False, "b", [HERE]),  # another one: what the former said is of no use
    ],
)
async def test_who_was_asked_before_is_told_unless_it_was_the_same_one_and_is_gone(is_heard, endpoint, closed):
    peers, events = Peers(), Events()
    chain = Chain([Begin(), Monitor(Monitors(events)), Dial(), peers])
    try:
        await chain.request(asking(HERE))
        if not is_heard:
            events.ended[HERE].set()
        await asyncio.sleep(1)
        await chain.request(asking(THERE, endpoint))
        assert peers.closed == closed
        await chain.close(asking(None, endpoint))
        assert peers.closed == [*closed, THERE]
    finally:
        await chain.aclose()


async def test_who_is_heard_again_is_told_when_somebody_else_takes_over():
    peers, events = Peers(), Events()
    chain = Chain([Begin(), Monitor(Monitors(events)), Dial(), peers])
    try:
        await chain.request(asking(HERE))
        events.ended[HERE].set()
        await asyncio.sleep(1)
        events.ended[HERE] = asyncio.Event()
        await chain.request(asking(HERE, "a"))
        await asyncio.sleep(1)
        await chain.request(asking(THERE, "a"))
        assert peers.closed == [HERE]
    finally:
        await chain.aclose()


async def test_a_client_asks_the_component_at_its_url_whatever_it_asks():
    probe = Record()
    chain = Chain([ClientUrl(HERE), probe])
    await chain.request(asking(THERE))
    assert probe.last.target == HERE
    await chain.close(asking(None))
    assert probe.last.target == HERE
