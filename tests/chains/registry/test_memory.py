"""What a registry in memory finds, and what watchers that read slowly get to know in the end."""

import asyncio
import random
import sys

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Found, RegistryCall, RegistryChain
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.memory import MOST_AT_ONCE, Memory, Records
from tests.chains.registry.records import find, nse


def endpoint(name, service, url="tcp://a:1"):
    return NetworkServiceEndpoint(name=name, network_service_names=[service], url=url)


async def read(watch, view):
    """Take one batch into `view`, as who watches does: nothing is removed that is not there."""
    for found in await anext(watch):
        if found.deleted:
            del view[found.record.name]
        else:
            view[found.record.name] = found.record.url


@pytest.mark.parametrize("seed", range(20))
async def test_a_reader_that_reads_now_and_then_knows_in_the_end_what_is_there(seed):
    dice, records, view = random.Random(seed), Records(), {}
    for number in range(5):
        records.put(endpoint(f"e{number}", "one"))
    watch = records.watch(NetworkServiceEndpoint(network_service_names=["one"]))
    await read(watch, view)
    for step in range(200):
        name = f"e{dice.randrange(8)}"
        if dice.random() < 0.4:
            records.pop(name)
        else:
            records.put(endpoint(name, dice.choice(["one", "other"]), f"tcp://a:{step}"))
        (watcher,) = records._watchers
        if watcher._news and dice.random() < 0.2:
            await read(watch, view)
    if watcher._news:
        await read(watch, view)
    assert view == {record.name: record.url for record in records.matching(endpoint("", "one", ""))}
    await watch.aclose()


async def test_a_watch_of_ten_thousand_records_keeps_nothing_of_them_once_they_were_read():
    records = Records()
    for number in range(10 * MOST_AT_ONCE):
        records.put(endpoint(f"e{number}", "one"))
    watch = records.watch(NetworkServiceEndpoint())
    for _ in range(10):
        assert len(await anext(watch)) == MOST_AT_ONCE
    (watcher,) = records._watchers
    assert sys.getsizeof(watcher._news) < 1000
    await watch.aclose()


async def test_records_are_found_by_name_by_service_and_not_after_they_went():
    chain = RegistryChain([RegistryBegin(), Memory()])
    for number in range(10):
        await chain.register(RegistryCall(nse(f"n{number}", f"s{number % 2}", "all")))
    assert [r.name for r in await find(chain, NetworkServiceEndpoint(name="n3"))] == ["n3"]
    assert [r.name for r in await find(chain, nse("", "s1", "all"))] == ["n1", "n3", "n5", "n7", "n9"]
    assert len(await find(chain)) == 10
    await chain.register(RegistryCall(nse("n3", "elsewhere")))
    assert len(await find(chain, nse("", "s1"))) == 4
    await chain.unregister(RegistryCall(nse("n3")))
    assert await find(chain, NetworkServiceEndpoint(name="n3")) == []
    assert await find(chain, nse("", "elsewhere")) == []


async def test_a_watch_goes_on_with_the_latest_of_each_record_and_stops_nobody():
    memory = Memory()
    chain = RegistryChain([RegistryBegin(), memory])
    await chain.register(RegistryCall(nse("there")))
    watch = chain.find(RegistryCall(nse("", "svc"), watch=True))
    assert await anext(watch) == [Found(nse("there"))]
    for number in range(1000):
        await chain.register(RegistryCall(nse("new", "svc", url=f"tcp://h:{number}")))
    await chain.register(RegistryCall(nse("other", "not watched")))
    await chain.unregister(RegistryCall(nse("there")))
    batch = await anext(watch)
    assert [(f.record.name, f.record.url, f.deleted) for f in batch] == [
        ("new", "tcp://h:999", False),
        ("there", "", True),
    ]
    await watch.aclose()
    await asyncio.sleep(1)
    assert memory.records._watchers == set()


async def test_what_was_found_is_not_changed_by_the_next_registration():
    chain = RegistryChain([RegistryBegin(), Memory()])
    record = nse("a")
    await chain.register(RegistryCall(record))
    record.url = "changed by the caller"
    assert (await find(chain))[0].url == ""
