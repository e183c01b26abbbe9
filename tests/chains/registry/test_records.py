"""A watcher of records that reads slowly delays nobody, and knows in the end what everybody knows."""

import random
import sys

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.registry.memory import MOST_AT_ONCE, Records


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
