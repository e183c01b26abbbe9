"""What a component keeps of what a registry reports, whatever that reports."""

import asyncio

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import ENDPOINTS, Limits, RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.follow import Follow
from nsm.chains.registry.memory import MOST_AT_ONCE, Memory, Records

ANY = NetworkServiceEndpoint()


def nse(name, size=1):
    labels = {"svc": NetworkServiceLabels(labels={"a": "x" * size})}
    return NetworkServiceEndpoint(name=name, network_service_names=["svc"], network_service_labels=labels)


async def found(chain, query=ANY):
    return sorted([each.record.name async for batch in chain.find(RegistryCall(query)) for each in batch])


async def test_a_record_that_is_too_large_is_left_out_and_the_watch_goes_on(capsys):
    registry = Memory()
    registry.records.put(nse("huge", 4_000_000))
    registry.records.put(nse("small"))
    async with RegistryChain([Cache(ENDPOINTS), registry]) as chain:
        assert await found(chain) == ["huge", "small"], "the registry's own answer, as long as nothing is known"
        await asyncio.sleep(1)
        assert await found(chain) == ["small"]
        for size in (4_000_001, 4_000_002):
            registry.records.put(nse("huge", size))
            registry.records.put(nse(f"later-{size}"))
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert await found(chain) == ["later-4000001", "later-4000002", "small"]
        registry.records.put(nse("huge"))
        registry.records.put(nse("small", 4_000_000))
        await asyncio.sleep(1)
        assert await found(chain) == ["huge", "later-4000001", "later-4000002"], "what grows too large goes"
    told = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(told) == 2
    assert all("label_length is" in line or "record_bytes is" in line for line in told)


@pytest.mark.parametrize("limits", [Limits(cached_records=10), Limits(cached_bytes=300)])
async def test_no_more_is_kept_than_there_is_room_for(limits):
    registry, broken = Memory(), []
    follow = Follow(ANY, limits=limits)
    watching = asyncio.ensure_future(follow.run(RegistryChain([registry]), lambda *why: broken.append(why)))
    for number in range(5):
        registry.records.put(nse(f"{number}"))
    await asyncio.sleep(1)
    assert (follow.is_complete, len(follow.records)) == (True, 5)
    for number in range(20):
        registry.records.put(nse(f"{number}"))
    await asyncio.sleep(1)
    assert (follow.is_complete, len(follow.records), len(broken)) == (False, 0, 1)
    error, pause = broken[0]
    assert "more records than are kept here" in str(error)
    assert pause == 60, "it is not read again and again"
    for number in range(19):
        registry.records.pop(f"{number}")
    await asyncio.sleep(61)
    assert (follow.is_complete, len(follow.records)) == (True, 1)
    watching.cancel()


async def test_a_reader_who_does_not_read_keeps_nothing_of_what_came_and_went():
    records: Records[NetworkService] = Records()
    for name in ("stays", "goes"):
        records.put(NetworkService(name=name))
    watch = records.watch(NetworkService())
    assert [each.record.name for each in await anext(watch)] == ["stays", "goes"]
    records.pop("goes")
    for number in range(10_000):
        records.put(NetworkService(name=f"{number}"))
        records.pop(f"{number}")
    (watcher,) = records._watchers
    assert len(watcher._news) == 1
    assert [(each.record.name, each.deleted) for each in await anext(watch)] == [("goes", True)]
    records.put(NetworkService(name="goes"))
    assert [(each.record.name, each.deleted) for each in await anext(watch)] == [("goes", False)]


async def test_a_registry_never_writes_all_that_it_has_at_once():
    memory = Memory()
    for number in range(1000):
        memory.records.put(nse(f"{number}"))
    batches = [batch async for batch in RegistryChain([memory]).find(RegistryCall(ANY))]
    watch = memory.records.watch(ANY)
    watched = [await anext(watch) for _ in batches]
    for each in (batches, watched):
        assert sum(map(len, each)) == 1000
        assert max(map(len, each)) == MOST_AT_ONCE


async def test_watches_of_a_node_are_one_at_the_registry_and_end_with_it():
    registry, asked, broken = Memory(), [], asyncio.Event()
    registry.records.put(nse("a"))

    class Registry(RegistryElement):
        async def find(self, call, rest):
            asked.append(call.watch)
            batches = registry.find(call, rest)
            async for batch in batches:
                yield batch
                if broken.is_set():
                    raise Unavailable("it went away")

    async with RegistryChain([Cache(ENDPOINTS), Registry()]) as chain:
        await found(chain)
        await asyncio.sleep(1)
        asked.clear()
        watches = [chain.find(RegistryCall(ANY, watch=True)) for _ in range(100)]
        for watch in watches:
            assert [each.record.name for each in await anext(watch)] == ["a"]
        assert asked == []
        registry.records.put(nse("b"))
        for watch in watches:
            assert [each.record.name for each in await anext(watch)] == ["b"]
        broken.set()
        registry.records.put(nse("c"))
        for watch in watches:
            with pytest.raises(Unavailable, match="the watch on the registry ended"):
                while True:
                    await anext(watch)
