"""Memory goes back to the system when many connections have ended, and not for each of them."""

import asyncio
import inspect
import sys
from collections import deque

import pytest

from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, check_health, released, serve
from nsm.chains.transport.door import Door
from nsm.chains.transport.turns import NOTHING, Turns


@pytest.fixture
def given_back(monkeypatch):
    """How often memory was given back; nothing is waited for long."""
    times = []
    for name in ("_QUIET", "_AGAIN"):
        monkeypatch.setattr(released, name, 0.01)
    monkeypatch.setattr(released, "give_back", lambda: times.append(1))
    return times


async def test_it_is_given_back_once_for_many(given_back):
    connections = released.Released()
    for _ in range(127):
        connections.ended()
    await asyncio.sleep(0.03)
    assert not given_back
    for _ in range(300):
        connections.ended()
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not given_back:
            await asyncio.sleep(0.01)
    assert given_back == [1]


async def test_it_is_given_back_again_when_as_many_more_have_ended(given_back):
    connections = released.Released()
    async with asyncio.timeout(5):
        for wanted in (1, 2):
            for _ in range(128):
                connections.ended()
            while len(given_back) < wanted:
                await asyncio.sleep(0.01)


def test_a_loop_that_ends_before_does_not_keep_the_next_one_from_it(given_back, monkeypatch):
    monkeypatch.setattr(released, "_LONGEST", -1.0)
    connections = released.Released()

    async def many():
        for _ in range(128):
            connections.ended()

    async def many_and_wait():
        await asyncio.sleep(0.02)
        await many()
        async with asyncio.timeout(5):
            while not given_back:
                await asyncio.sleep(0.01)

    asyncio.run(many())
    asyncio.run(many_and_wait())


def test_what_is_free_is_given_back_for_real():
    released.give_back()


async def test_no_number_about_peers_that_left_holds_memory():
    """A manager whose thousand clients had left kept a mebibyte for the time of the last handshake, and for others."""
    released.RELEASED.resting.clear()
    methods, authority = Health().methods(), Authority.create("test.mesh")
    async with serve(["tcp://127.0.0.1:0"], methods, identity_of(authority, "server"), name="server") as (url,):
        async with Pool(identity_of(authority, "client")) as pool:
            assert await check_health(pool, url)
            (door,) = [each for each in released.RELEASED.resting if isinstance(each, Door)]
            assert door._moved
        async with asyncio.timeout(5):
            while any(isinstance(each, Turns) and each._shares for each in released.RELEASED.resting):
                await asyncio.sleep(0.01)
        released.give_back()
        kept = [value for each in released.RELEASED.resting for value in vars(each).values()]
        assert [value for value in kept if isinstance(value, float) and value] == []
        assert {sys.getsizeof(value) for value in kept if isinstance(value, dict)} == {sys.getsizeof({})}


async def test_an_idle_channel_has_no_tables_and_queues_of_its_own():
    """Of the 50 KiB of each idle channel, six were for what is the same in all of them, or empty."""
    methods, authority = Health().methods(), Authority.create("test.mesh")
    async with serve(["tcp://127.0.0.1:0"], methods, identity_of(authority, "server"), name="server") as (url,):
        async with Pool(identity_of(authority, "client")) as pool:
            assert await check_health(pool, url)
            protocol = pool.channel(url)._protocol
            kept = [*vars(protocol.h2).values(), *vars(protocol.processor).values(), *vars(protocol).values()]
            tables = [table for table in kept if isinstance(table, dict) and any(map(inspect.ismethod, table.values()))]
            queues = [queue for queue in kept if isinstance(queue, deque) and queue is not NOTHING]
            assert (tables, queues) == ([], [])
