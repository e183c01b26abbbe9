"""A client that asks until it gets an answer; time is virtual."""

import asyncio

import pytest

from nsm.chains.core import Begin, Chain, Element, Unavailable
from nsm.chains.elements.retry import LONGEST_PAUSE, Retry
from nsm.chains.testing.calls import call


class Fails(Element):
    """Fails `times` times, and spoils what it was given, as elements may."""

    def __init__(self, times):
        self.left, self.asked = times, []

    async def request(self, call, rest):
        self.asked.append((asyncio.get_running_loop().time(), call.connection.network_service, call.remaining()))
        call.connection.network_service = "spoilt"
        if self.left:
            self.left -= 1
            raise Unavailable("gone")
        return await rest.request(call)


async def test_each_attempt_is_the_request_as_it_came_with_its_whole_time():
    told, fails = [], Fails(3)
    async with Chain([Retry(timeout=7, tell=lambda *each: told.append(each)), Begin(), fails]) as chain:
        await chain.request(call("c", service="icmp"))
    assert [(service, left) for _, service, left in fails.asked] == [("icmp", 7)] * 4
    assert [(asked.id, str(error)) for asked, error, _ in told] == [("c", "gone (fails)")] * 3


async def test_a_service_that_is_away_for_long_is_asked_for_now_and_then():
    """No storm: far less than once a second."""
    fails = Fails(10**6)
    async with Chain([Retry(), Begin(), fails]) as chain:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await chain.request(call("c", service="icmp"))
    assert 600 / LONGEST_PAUSE / 1.3 < len(fails.asked) < 600 / LONGEST_PAUSE + 10


async def test_who_gives_up_leaves_nothing():
    begin = Begin()
    async with Chain([Retry(), begin, Fails(10**6)]) as chain:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await chain.request(call("c", service="icmp"))
        assert len(begin) == 0
