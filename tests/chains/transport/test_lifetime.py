"""Connections end with the identities that they were made with."""

import asyncio
import datetime
from contextlib import asynccontextmanager

import pytest

from nsm.apis.health import HealthCheckRequest, HealthCheckResponse
from nsm.chains.core import MeshError, Unavailable
from nsm.chains.identity import Authority, Identity
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, Streaming, check_health, serve

AUTHORITY, OTHER = Authority.create("test.mesh"), Authority.create("test.mesh")
LIFE = datetime.timedelta(seconds=1.2)


def identity(name, *, authority=AUTHORITY, bundle=(AUTHORITY,), lifetime=None):
    made = Identity()
    lifetime = lifetime or datetime.timedelta(hours=1)
    svid = authority.issue(f"spiffe://test.mesh/{name}", lifetime=lifetime)
    made.update(svid, {"test.mesh": [one.certificate for one in bundle]})
    return made


async def watch(_message, _incoming):
    yield [HealthCheckResponse()]
    await asyncio.Event().wait()


@asynccontextmanager
async def watched(server, client):
    """A watch, and a pool, of which the client ignores that it should leave as long as the watch goes on."""
    methods = {**Health().methods(), "/t/Watch": Streaming(HealthCheckRequest, watch)}
    async with serve(["tcp://127.0.0.1:0"], methods, server, name="s") as urls, Pool(client) as pool:
        channel = pool.channel(urls[0])
        answers = channel.stream("/t/Watch", HealthCheckRequest(), HealthCheckResponse)
        assert len(await anext(answers)) == 1
        yield urls[0], pool, answers
        await answers.aclose()


async def ends(answers, seconds):
    async with asyncio.timeout(seconds):
        with pytest.raises(Unavailable):
            await anext(answers)


@pytest.mark.parametrize("short", ["server", "client"])
async def test_a_connection_ends_when_a_certificate_of_either_side_expires(short):
    """Its watches with it, whoever would go on."""
    identities = {name: identity(name, lifetime=LIFE if name == short else None) for name in ("server", "client")}
    async with watched(identities["server"], identities["client"]) as (_, _, answers):
        await ends(answers, 4)


async def test_an_expired_identity_is_not_served_over_an_open_connection():
    """What it renews, it renews over a new connection, which needs an identity that holds."""
    client = identity("client", lifetime=LIFE)
    async with watched(identity("server"), client) as (url, pool, answers):
        await ends(answers, 4)
        with pytest.raises(MeshError):
            await check_health(pool, url, timeout=1)


@pytest.mark.parametrize("renewed", ["server", "client"])
async def test_a_connection_ends_when_the_other_side_s_authority_goes(renewed, monkeypatch):
    """A peer that does not leave when it is told to is cut off."""
    monkeypatch.setattr("nsm.chains.transport.lifetime.GRACE", 0.3)
    both = (AUTHORITY, OTHER)
    server = identity("server", authority=AUTHORITY if renewed == "server" else OTHER, bundle=both)
    client = identity("client", authority=OTHER if renewed == "server" else AUTHORITY, bundle=both)
    async with watched(server, client) as (url, pool, answers):
        mine = server if renewed == "server" else client
        mine.update(mine.svid, {"test.mesh": [AUTHORITY.certificate]})
        with pytest.raises(MeshError):
            await check_health(pool, url, timeout=1)
        await ends(answers, 2)


async def test_a_connection_goes_on_when_its_authority_stays():
    """Others may come and go."""
    server, client = identity("server"), identity("client")
    async with watched(server, client) as (url, pool, _):
        connection = await pool.channel(url)._connection()
        for one in (server, client):
            one.update(one.svid, {"test.mesh": [OTHER.certificate, AUTHORITY.certificate]})
        await asyncio.sleep(0.1)
        assert not connection.connection.is_closing()
        assert await check_health(pool, url)


async def test_a_connection_that_ended_is_not_kept_by_the_identity():
    """Nothing grows with connections that come and go."""
    server, client = identity_of(AUTHORITY, "server"), identity_of(AUTHORITY, "client")
    async with serve(["tcp://127.0.0.1:0"], Health().methods(), server, name="s") as urls:
        before = len(server.watchers), len(client.watchers)
        for _ in range(3):
            async with Pool(client) as pool:
                assert await check_health(pool, urls[0])
        async with asyncio.timeout(2):
            while (len(server.watchers), len(client.watchers)) != before:
                await asyncio.sleep(0.01)
