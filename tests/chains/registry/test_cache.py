"""A manager that watches its registry."""

import asyncio

import pytest

from nsm.chains.core import ENDPOINTS, Found, RegistryCall, RegistryChain, RegistryElement, Unavailable
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
        gone = asyncio.ensure_future(self.down.wait())
        batches, step = self.memory.find(call, rest), None
        try:
            while True:
                step = asyncio.ensure_future(anext(batches))
                await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    raise Unavailable("registry went away")
                try:
                    yield step.result()
                except StopAsyncIteration:
                    return
        finally:
            for task in (gone, step):
                task.cancel()
            await asyncio.gather(gone, step, return_exceptions=True)
            await batches.aclose()


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


class Ahead(Upstream):
    """It tells a caller of a record that is gone before the manager's own watch could be told."""

    async def find(self, call, rest):
        if call.record.network_service_names:
            yield [Found(nse("gone"))]
        async for batch in super().find(call, rest):
            yield batch


async def test_after_a_registry_was_away_a_node_has_one_watch_there_again():
    """Watches that began while the manager's own was broken move to it, and miss nothing."""
    upstream, known = Ahead(), {}
    upstream.memory.records.put(nse("a"))
    async with RegistryChain([Cache(ENDPOINTS), upstream]) as chain:

        async def follow():
            async for batch in chain.find(RegistryCall(nse(""), watch=True)):
                known.update({found.record.name: not found.deleted for found in batch})

        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0.1)
        assert (known, upstream.memory.records.watches) == ({"gone": True, "a": True}, 2)
        await asyncio.sleep(1)
        assert upstream.memory.records.watches == 1
        upstream.memory.records.put(nse("b"))
        await asyncio.sleep(0.1)
        assert known == {"gone": False, "a": True, "b": True}
        upstream.memory.records.pop("a")
        await asyncio.sleep(0.1)
        assert known == {"gone": False, "a": False, "b": True}
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert upstream.memory.records.watches == 0


class Ending(RegistryElement):
    """A registry that ends each watch after the first batch."""

    async def find(self, call, rest):
        yield [Found(nse("a"))]


async def test_a_watch_that_a_registry_ends_takes_back_nothing_that_it_told():
    async with RegistryChain([Cache(ENDPOINTS), Ending()]) as chain:
        told = [found async for batch in chain.find(RegistryCall(nse(""), watch=True)) for found in batch]
    assert [(found.record.name, found.deleted) for found in told] == [("a", False)]
