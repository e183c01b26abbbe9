"""What is held open for a connection is closed while nobody asks anything of it; time is virtual."""

import asyncio

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.elements.idle import IDLE_AFTER, close_now, hold


class Holds(Element):
    """Holds something, and notes what becomes of it; takes a while to answer."""

    def __init__(self):
        self.seen = []

    async def request(self, call, rest):
        self.seen.append("asked")
        await asyncio.sleep(1)
        hold(call.live, self, self.let_go)
        self.seen.append("held")
        return await rest.request(call)

    async def let_go(self):
        self.seen.append("let go")


def call():
    return Call(NetworkServiceRequest(connection=Connection(id="c")), deadline=asyncio.get_running_loop().time() + 60)


async def test_it_is_let_go_a_moment_after_the_last_request_and_once():
    holds = Holds()
    async with Chain([Begin(), holds]) as chain:
        await chain.request(call())
        await asyncio.sleep(IDLE_AFTER / 2)
        await chain.request(call())
        assert holds.seen == ["asked", "held"] * 2
        await asyncio.sleep(100)
        assert holds.seen == ["asked", "held", "asked", "held", "let go"]
        await chain.request(call())
        await asyncio.sleep(100)
        assert holds.seen[5:] == ["asked", "held", "let go"]


async def test_it_is_not_let_go_in_the_middle_of_a_request():
    holds, begin = Holds(), Begin()
    async with Chain([begin, holds]) as chain:
        await chain.request(call())
        asking = asyncio.ensure_future(chain.request(call()))
        await asyncio.sleep(0.5)
        close_now(begin.stores()[0])
        await asking
        await asyncio.sleep(0.1)
        assert holds.seen == ["asked", "held", "asked", "held", "let go"]


async def test_a_connection_that_is_closed_has_nothing_to_let_go():
    holds = Holds()
    async with Chain([Begin(), holds]) as chain:
        await chain.request(call())
        await chain.close(call())
        await asyncio.sleep(100)
        assert holds.seen == ["asked", "held"]
