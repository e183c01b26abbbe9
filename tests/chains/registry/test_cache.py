"""A manager that watches its registry."""

import asyncio

import pytest

from nsm.chains.core import ENDPOINTS, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import find, nse


class Upstream(RegistryElement):
    """A registry that can be asked, watched and taken away."""

    def __init__(self):
        self.memory, self.asked, self.down = Memory(), 0, asyncio.Event()

    async def find(self, call, rest):
        if self.down.is_set():
            raise Unavailable("registry is down")
        if not call.watch:
            self.asked += 1
        batches = self.memory.find(call, rest)
        while True:
            step, gone = asyncio.ensure_future(anext(batches)), asyncio.ensure_future(self.down.wait())
            await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not step.done():
                step.cancel()
                raise Unavailable("registry went away")
            try:
                yield step.result()
            except StopAsyncIteration:
                return


async def test_a_manager_answers_from_its_watch_and_asks_on_a_miss():
    upstream = Upstream()
    upstream.memory.records.put(nse("a"))
    async with RegistryChain([Cache(ENDPOINTS), upstream]) as chain:
        await find(chain)
        await asyncio.sleep(1)
        asked = upstream.asked
        assert [r.name for r in await find(chain, nse("a"))] == ["a"]
        assert upstream.asked == asked
        upstream.memory.records._by_name["b"] = nse("b")  # registered a moment ago: the watch has not told yet
        assert [r.name for r in await find(chain, nse("b"))] == ["b"]
        assert upstream.asked == asked + 1
        upstream.memory.records.pop("a")
        await asyncio.sleep(1)
        assert await find(chain, nse("a")) == []


async def test_a_manager_whose_watch_broke_asks_until_it_watches_again():
    upstream = Upstream()
    upstream.memory.records.put(nse("a"))
    async with RegistryChain([Cache(ENDPOINTS), upstream]) as chain:
        await find(chain)
        await asyncio.sleep(1)
        upstream.down.set()
        await asyncio.sleep(1)
        with pytest.raises(Unavailable):
            await find(chain, nse("a"))
        upstream.down.clear()
        upstream.memory.records.pop("a")
        upstream.memory.records.put(nse("b"))
        assert [r.name for r in await find(chain)] == ["b"]
        await asyncio.sleep(20)
        asked = upstream.asked
        assert [r.name for r in await find(chain, nse("b"))] == ["b"]
        assert upstream.asked == asked
