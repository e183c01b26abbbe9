"""Services of other domains, answered from a watch for each."""

import asyncio
from contextlib import aclosing

import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.core import ENDPOINTS, SERVICES, RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.cache_elsewhere import IDLE, CacheElsewhere
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import find, nse


class Asked(RegistryElement):
    """Counts queries."""

    def __init__(self):
        self.finds = 0

    def find(self, call, rest):
        self.finds += 1
        return rest.find(call)


async def test_a_service_that_was_requested_is_answered_from_its_watch():
    asked, memory = Asked(), Memory()
    memory.records.put(nse("a@two", "shop@two"))
    async with RegistryChain([CacheElsewhere(ENDPOINTS), asked, memory]) as chain:
        query = nse("", "shop@two")
        await find(chain, query)
        await asyncio.sleep(1)
        before = asked.finds
        assert [each.name for each in await find(chain, query)] == ["a@two"]
        assert [each.name for each in await find(chain, nse("a@two", "shop@two"))] == ["a@two"]
        memory.records.put(nse("b@two", "shop@two"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(await find(chain, query)) == 2
        assert asked.finds == before


async def test_watches_of_a_service_share_one_and_end_with_it():
    asked, memory = Asked(), Memory()
    memory.records.put(NetworkService(name="shop@two"))
    async with RegistryChain([CacheElsewhere(SERVICES), asked, memory]) as chain:
        await find(chain, NetworkService(name="shop@two"))
        await asyncio.sleep(1)
        before = asked.finds
        async with aclosing(chain.find(RegistryCall(NetworkService(name="shop@two"), watch=True))) as batches:
            assert [one.record.name for one in await anext(batches)] == ["shop@two"]
            memory.records.put(NetworkService(name="shop@two", payload="IP"))
            assert [one.record.payload for one in await anext(batches)] == ["IP"]
            assert asked.finds == before
            memory.records.end("the registry went away")
            with pytest.raises(Unavailable):
                await anext(batches)


async def test_what_is_not_of_another_domain_or_not_known_is_passed_on():
    asked, memory = Asked(), Memory()
    memory.records.put(nse("a", "shop"))
    async with RegistryChain([CacheElsewhere(ENDPOINTS), asked, memory]) as chain:
        for _ in range(3):
            assert len(await find(chain, nse("", "shop"))) == 1
            assert await find(chain, nse("", "gym@two")) == []
        assert asked.finds == 6


async def test_a_service_that_nobody_requests_is_not_watched_again_when_its_watch_breaks():
    asked, memory = Asked(), Memory()
    memory.records.put(nse("a@two", "shop@two"))
    async with RegistryChain([CacheElsewhere(ENDPOINTS), asked, memory]) as chain:
        await find(chain, nse("", "shop@two"))
        await asyncio.sleep(IDLE + 1)
        before = asked.finds
        memory.records.end("the registry went away")
        await asyncio.sleep(60)
        assert asked.finds == before
