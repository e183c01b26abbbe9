"""A channel that is closed, or replaced, while it is used leaves no connection behind that nobody closes."""

import asyncio
import datetime
from contextlib import suppress

from nsm.apis.health import HealthCheckRequest
from nsm.chains.core import MeshError
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, check_health, serve
from nsm.chains.transport.channel import Channel
from nsm.chains.transport.rpc import HEALTH_CHECK

AUTHORITY = Authority.create("test.mesh")


def rotate(identity):
    identity.update(AUTHORITY.issue(identity.spiffe_id, lifetime=datetime.timedelta(hours=1)), identity.bundles)


class Slow:
    """Has a channel shake hands only when it may."""

    def __init__(self, monkeypatch):
        self.begun, self.may = asyncio.Event(), asyncio.Event()
        dial = Channel._dial

        async def late(channel):
            self.begun.set()
            await self.may.wait()
            return await dial(channel)

        monkeypatch.setattr(Channel, "_dial", late)


async def test_a_pool_that_ends_while_a_call_connects_leaves_no_connection(tmp_path, monkeypatch):
    slow, identity = Slow(monkeypatch), identity_of(AUTHORITY, "server")
    async with serve([f"unix://{tmp_path}/s"], Health().methods(), identity, name="server") as urls:
        async with Pool(identity_of(AUTHORITY, "client")) as pool:
            call = asyncio.create_task(check_health(pool, urls[0]))
            channel = pool.channel(urls[0])
            await slow.begun.wait()
        slow.may.set()
        with suppress(MeshError):
            await call
        assert channel._protocol is None
        assert not channel.calls


async def test_a_call_that_connects_while_the_identity_rotates_ends_well_and_its_connection_with_it(
    tmp_path, monkeypatch
):
    slow, identity = Slow(monkeypatch), identity_of(AUTHORITY, "client")
    server = identity_of(AUTHORITY, "server")
    async with (
        serve([f"unix://{tmp_path}/s"], Health().methods(), server, name="server") as urls,
        Pool(identity) as pool,
    ):
        old = pool.channel(urls[0])
        call = asyncio.create_task(check_health(pool, urls[0]))
        await slow.begun.wait()
        rotate(identity)
        assert pool.channel(urls[0]) is not old
        slow.may.set()
        assert await call
        assert old._protocol is None
        assert len(pool) == 1


async def test_the_connection_that_a_rotation_replaced_ends_with_its_last_call_and_not_with_the_next_one(tmp_path):
    may = asyncio.Event()

    identity, server = identity_of(AUTHORITY, "client"), identity_of(AUTHORITY, "server")
    methods = Health().methods()
    answer = methods[HEALTH_CHECK].answer

    async def wait(message, incoming):
        await may.wait()
        return await answer(message, incoming)

    methods[HEALTH_CHECK] = type(methods[HEALTH_CHECK])(HealthCheckRequest, wait)
    async with (
        serve([f"unix://{tmp_path}/s"], methods, server, name="server") as urls,
        Pool(identity) as pool,
    ):
        old = pool.channel(urls[0])
        call = asyncio.create_task(check_health(pool, urls[0]))
        while not old.calls or old._protocol is None:
            await asyncio.sleep(0.01)
        rotate(identity)
        pool.channel(urls[0])
        assert old._protocol is not None
        may.set()
        assert await call
        assert old._protocol is None
