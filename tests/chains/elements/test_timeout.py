"""The end of what is not refreshed, and not of what somebody vouches for in that very moment; time is virtual."""

import asyncio
import time

import pytest

from nsm.apis.connection import Path, PathSegment
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Begin, Chain, Element, InvalidRequest, NotFound, Peer, Refused, Unavailable
from nsm.chains.elements.timeout import Timeout
from nsm.chains.testing import Delay, Record, call
from nsm.chains.testing.clock import wall_clock
from tests.chains.elements.paths import path


class Waits:
    """An orphan's end, which takes as long to find out as asking somebody does."""

    lifetime = 1000.0

    def wait(self, _store):
        return 0.0

    async def look_ahead(self, store):
        pass

    async def is_explained(self, store):
        return False

    async def is_back(self, _store):
        await asyncio.sleep(3)
        return True

    def may_outlive(self, _peer, _index):
        return False

    def is_young(self, _store):
        return True


def request(seconds):
    """A request of a caller whose token lives so long."""
    caller = PathSegment(name="forwarder", id="f", expires=Timestamp.from_seconds(time.time() + seconds))
    asked = call("c", path=Path(index=1, path_segments=[caller, PathSegment(name="endpoint", id="c")]))
    asked.peer = Peer("spiffe://test.mesh/forwarder", b"")
    return asked


@pytest.mark.parametrize("orphans", [None, Waits()])
async def test_what_is_not_refreshed_ends_with_its_callers_token(orphans):
    with wall_clock():
        begin = Begin()
        await Chain([begin, Timeout(orphans)]).request(request(10))
        await asyncio.sleep(9)
        assert len(begin) == 1
        await asyncio.sleep(5)
        assert len(begin) == 0


class Fails(Element):
    def __init__(self):
        self.error = None

    async def request(self, call, rest):
        if self.error is not None:
            raise self.error
        return await rest.request(call)


@pytest.mark.parametrize(
    ("error", "stays"), [(Unavailable("away"), True), (NotFound("expired"), True), (Refused("not yours"), False)]
)
async def test_what_its_caller_vouches_for_stays_while_those_behind_are_away(error, stays):
    """Also for longer than their registrations last: then they are not found."""
    with wall_clock():
        begin, behind = Begin(), Fails()
        chain = Chain([begin, Timeout(Waits()), behind])
        await chain.request(request(10))
        behind.error = error
        for _ in range(5):
            await asyncio.sleep(5)
            with pytest.raises(type(error)):
                await chain.request(request(10))
        await asyncio.sleep(4)
        assert len(begin) == stays


async def test_what_is_vouched_for_while_its_end_is_considered_stays():
    with wall_clock():
        begin = Begin()
        chain = Chain([begin, Timeout(Waits())])
        await chain.request(request(10))
        await asyncio.sleep(11)  # the end has been reached, and somebody is being asked
        await chain.request(request(100))
        await asyncio.sleep(50)
        assert len(begin) == 1
        await asyncio.sleep(60)
        assert len(begin) == 0


async def test_what_is_refreshed_when_its_token_ends_stays():
    """The refresh was there first; its answer takes a while."""
    with wall_clock():
        begin, delay = Begin(), Delay()
        chain = Chain([begin, Timeout(), delay])
        await chain.request(request(10))
        delay.seconds = 4
        await asyncio.sleep(8)
        await chain.request(request(100))
        await asyncio.sleep(50)
        assert len(begin) == 1


async def test_a_connection_that_is_not_refreshed_is_closed_when_the_caller_s_token_expires():
    probe = Record()
    async with Chain([Begin(), Timeout(), probe]) as chain:
        await chain.request(call(path=path("client", "server", index=1, lifetime=60)))
        await asyncio.sleep(50)
        await chain.request(call(path=path("client", "server", index=1, lifetime=60)))
        await asyncio.sleep(55)
        assert probe.closes == []
        await asyncio.sleep(10)
        assert len(probe.closes) == 1
        await asyncio.sleep(1000)
        assert len(probe.closes) == 1


async def test_a_caller_that_does_not_say_when_its_token_expires_is_refused_before_anything_is_done():
    probe = Record()
    chain = Chain([Begin(), Timeout(), probe])
    for bad in (path("server"), Path(index=1, path_segments=[PathSegment(name="a"), PathSegment(name="b")]), None):
        with pytest.raises(InvalidRequest):
            await chain.request(call(path=bad))
    assert probe.requests == []
