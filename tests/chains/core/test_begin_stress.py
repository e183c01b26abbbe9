"""Requests, closes, expiry, refreshes, reselections and cancellations against each other, in virtual time."""

import asyncio
import random
from collections import Counter

import pytest

from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Key, Unavailable, reselect_everything

HELD = Key("held")
REFRESH, EXPIRE = Key("refresh"), Key("expire")


class World(Element):
    """Takes time, fails at random, and keeps account of what a kernel or a peer would hold."""

    def __init__(self, luck):
        self.luck, self.running, self.held, self.worst = luck, Counter(), Counter(), 0

    async def request(self, call, rest):
        with self._turn(call):
            await asyncio.sleep(self.luck.choice([0, 0.01, 0.3]))
            if not call.live.get(HELD):
                call.undo.add(lambda: self._let_go(call))
                call.live.put(HELD, True)
                self.held[call.connection.id] += 1
            await asyncio.sleep(self.luck.choice([0, 0.01, 0.3]))
            if self.luck.random() < 0.2:
                raise Unavailable("on purpose")
            connection = await rest.request(call)
            await asyncio.sleep(self.luck.choice([0, 0.2]))
            return connection

    async def close(self, call, rest):
        with self._turn(call):
            try:
                await asyncio.sleep(self.luck.choice([0, 0.1]))
                if self.luck.random() < 0.2:
                    raise Unavailable("on purpose")
                await rest.close(call)
            finally:
                await self._let_go(call)

    async def _let_go(self, call):
        await asyncio.sleep(self.luck.choice([0, 0.05]))
        if call.live.pop(HELD):
            self.held[call.connection.id] -= 1

    def _turn(self, call):
        return _Turn(self, call.connection.id)


class _Turn:
    def __init__(self, world, connection_id):
        self.world, self.connection_id = world, connection_id

    def __enter__(self):
        self.world.running[self.connection_id] += 1
        self.world.worst = max(self.world.worst, self.world.running[self.connection_id])

    def __exit__(self, *_):
        self.world.running[self.connection_id] -= 1


class Clockwork(Element):
    """Lets connections refresh, reselect and expire by themselves, as those elements do."""

    def __init__(self, luck):
        self.luck = luck

    async def request(self, call, rest):
        connection = await rest.request(call)
        now, events = asyncio.get_running_loop().time(), call.live.events
        reselect = reselect_everything if self.luck.random() < 0.3 else None
        call.live.schedule(REFRESH, now + self.luck.uniform(0, 1), lambda: _quietly(events.request(reselect=reselect)))
        call.live.schedule(EXPIRE, now + self.luck.uniform(0, 3), lambda: _quietly(events.close()))
        return connection


async def _quietly(event):
    try:
        await event
    except Unavailable:
        pass


def call_of(luck):
    connection = Connection(id=luck.choice("abc"))
    if luck.random() < 0.2:
        connection.state = State.RESELECT_REQUESTED
    return Call(NetworkServiceRequest(connection=connection))


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_meets_whatever_events_run_one_at_a_time_and_nothing_stays(seed):
    luck = random.Random(seed)
    begin, world = Begin(), World(luck)
    chain = Chain([begin, Clockwork(luck), world])

    async def caller():
        for _ in range(12):
            work = chain.request(call_of(luck)) if luck.random() < 0.7 else chain.close(call_of(luck))
            task = asyncio.ensure_future(work)
            await asyncio.sleep(luck.choice([0, 0.02, 0.4]))
            if luck.random() < 0.3:
                task.cancel()
            try:
                await task
            except (asyncio.CancelledError, Unavailable):
                pass

    await asyncio.gather(*(caller() for _ in range(5)))
    assert world.worst == 1
    known = {store.connection_id for store in begin.stores()}
    assert all(count in (0, 1) for count in world.held.values())
    assert {connection for connection, count in world.held.items() if count} <= known
    await begin.close_all()
    await asyncio.sleep(10)
    assert len(begin) == 0
    assert set(world.held.values()) <= {0}
    assert set(world.running.values()) == {0}
    await chain.aclose()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert others == []
