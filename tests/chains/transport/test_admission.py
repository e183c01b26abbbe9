"""A component that has as much to do as it takes says when to come again, and who does is served."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsm.apis.health import HealthCheckRequest, HealthCheckResponse
from nsm.chains.core import Exhausted, InvalidRequest, Limits, counts
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, Streaming, Unary, serve, server
from nsm.chains.transport.frames import PUSHBACK

AUTHORITY = Authority.create("test.mesh")
SLOW, WATCH = "/test.Slow/Call", "/test.Slow/Watch"


class Slow:
    """Answers when it may."""

    def __init__(self):
        self.may, self.running, self.most = asyncio.Event(), 0, 0

    def methods(self):
        return {SLOW: Unary(HealthCheckRequest, self.call), WATCH: Streaming(HealthCheckRequest, self.watch)}

    async def call(self, _message, _incoming):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.may.wait()
        finally:
            self.running -= 1
        return HealthCheckResponse()

    async def watch(self, _message, _incoming):
        yield [HealthCheckResponse()]
        await self.may.wait()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(server, "_SOON", 0.1)


@asynccontextmanager
async def mesh(tmp_path, limits):
    slow = Slow()
    methods, identity = slow.methods(), identity_of(AUTHORITY, "server")
    async with serve([f"unix://{tmp_path}/s"], methods, identity, name="server", limits=limits) as urls:
        yield slow, urls[0]


async def call(pool, url, seconds=10.0):
    deadline = asyncio.get_running_loop().time() + seconds
    return await pool.channel(url).unary(SLOW, HealthCheckRequest(), HealthCheckResponse, deadline=deadline)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_who_is_told_to_come_again_does_and_is_served(tmp_path):
    async with mesh(tmp_path, Limits(taken=2)) as (slow, url), Pool(identity_of(AUTHORITY, "a")) as pool:
        before = counts.LIMITS["taken"]
        calls = [asyncio.create_task(call(pool, url)) for _ in range(10)]
        await until(lambda: counts.LIMITS["taken"] >= before + 8)
        assert slow.running == 2
        slow.may.set()
        await asyncio.gather(*calls)
        assert slow.most == 2


async def test_who_has_no_time_to_come_again_hears_so_at_once(tmp_path):
    async with mesh(tmp_path, Limits(taken=1)) as (slow, url), Pool(identity_of(AUTHORITY, "a")) as pool:
        first = asyncio.create_task(call(pool, url))
        await until(lambda: slow.running)
        with pytest.raises(Exhausted, match="1 calls are here, 1 of them of spiffe://test.mesh/a; try again") as told:
            await call(pool, url, seconds=0.15)
        assert 0.1 <= told.value.retry_after <= 0.3
        slow.may.set()
        await first


async def test_a_peer_that_fills_a_component_keeps_nobody_else_out(tmp_path):
    async with (
        mesh(tmp_path, Limits(taken=4)) as (slow, url),
        Pool(identity_of(AUTHORITY, "greedy")) as greedy,
        Pool(identity_of(AUTHORITY, "modest")) as modest,
    ):
        calls = [asyncio.create_task(call(greedy, url)) for _ in range(8)]
        await until(lambda: slow.running == 4)
        calls.append(asyncio.create_task(call(modest, url)))
        await until(lambda: slow.running == 5)
        slow.may.set()
        await asyncio.gather(*calls)


async def test_watches_leave_room_for_calls(tmp_path):
    async with mesh(tmp_path, Limits(taken=1)) as (slow, url), Pool(identity_of(AUTHORITY, "a")) as pool:
        watch = pool.channel(url).stream(WATCH, HealthCheckRequest(), HealthCheckResponse)
        assert await anext(watch)
        slow.may.set()
        await call(pool, url)
        await watch.aclose()


async def test_an_error_without_a_hint_is_not_tried_again(tmp_path):
    tries = []

    async def refuse(_message, _incoming):
        tries.append(1)
        raise Exhausted("no address is left")

    identity = identity_of(AUTHORITY, "server")
    methods = {SLOW: Unary(HealthCheckRequest, refuse)}
    async with serve([f"unix://{tmp_path}/s"], methods, identity, name="server") as urls:
        async with Pool(identity_of(AUTHORITY, "a")) as pool:
            with pytest.raises(Exhausted, match="no address is left"):
                await call(pool, urls[0])
    assert tries == [1]


@pytest.mark.parametrize(("said", "heard"), [("250", 0.25), ("0", 0.1), ("-1", None), ("x", None), ("9" * 30, None)])
async def test_a_peer_s_hint_is_taken_as_far_as_it_makes_sense(tmp_path, said, heard):
    async def refuse(_message, _incoming):
        raise InvalidRequest("no")

    def status(_error, _longest):
        return [("grpc-status", "8"), ("grpc-message", "busy"), (PUSHBACK, said)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_status", status)
        methods = {SLOW: Unary(HealthCheckRequest, refuse)}
        async with serve([f"unix://{tmp_path}/s"], methods, identity_of(AUTHORITY, "server"), name="server") as urls:
            async with Pool(identity_of(AUTHORITY, "a")) as pool:
                with pytest.raises(Exhausted) as told:
                    await pool.channel(urls[0]).unary(SLOW, HealthCheckRequest(), HealthCheckResponse)
    assert told.value.retry_after == heard
