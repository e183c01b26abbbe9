"""SVIDs that are not renewed, and clocks that jump: connections stay, or come back by themselves."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from nsm.apis import codec
from nsm.chains.testing import Record, call
from nsm.chains.testing.clock import wall_clock

from .meshes import FORWARDER, NSMGR, mesh_with

HOUR = 3600
"""Seconds that an SVID of a `Mesh` lives."""


async def made(mesh, name="client", **options):
    client = mesh.add_client(name, **options)
    return client, await client.request(call(f"{name}-1", "shop", timeout=5))


def again(connection):
    asked = call(connection.id, timeout=5)
    asked.connection = codec.clone(connection)
    return asked


async def test_wires_stay_while_the_issuer_is_away_and_are_refreshed_when_it_is_back():
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=60, orphan_lifetime=24 * HOUR) as mesh:
            client, connection = await made(mesh, refresh=True)
            mesh.renew(lifetime=100)
            with capture_logs() as logs:
                await asyncio.sleep(200)
            assert mesh.connections() == {"client": 1, NSMGR: 1, FORWARDER: 1, "shop": 1}
            assert record.closes == []
            failures = [each for each in logs if each["event"] == "refresh failed"]
            warned = [each["error"] for each in failures if each["log_level"] == "warning"]
            assert len(failures) > 5
            assert 0 < len(warned) < 5, "a cause is told once"
            mesh.renew()
            await asyncio.sleep(30)
            same = await client.request(again(connection))
            assert same.context == connection.context
            assert record.closes == []


async def test_a_client_that_died_while_the_issuer_was_away_is_cleaned_up_when_it_is_back():
    with wall_clock():
        async with mesh_with(orphan_lifetime=24 * HOUR) as mesh:
            await made(mesh)
            mesh.identity(NSMGR).is_source_away = True
            mesh.identity(FORWARDER).is_source_away = mesh.identity("shop").is_source_away = True
            await asyncio.sleep(700)
            assert mesh.connections()["shop"] == 1
            for name in (NSMGR, FORWARDER, "shop"):
                mesh.identity(name).is_source_away = False
            await asyncio.sleep(30)
            assert {NSMGR, FORWARDER, "shop"}.isdisjoint(mesh.connections())


@pytest.mark.parametrize("jump", [HOUR / 2, -HOUR], ids=["forth", "back"])
async def test_nothing_is_torn_down_because_the_clock_was_set(jump):
    record = Record()
    with wall_clock():  # also has the clock as it was again
        async with mesh_with(record) as mesh:
            client, connection = await made(mesh, refresh=True)
            await asyncio.sleep(60)
            before = time.time
            time.time = lambda: before() + jump
            await asyncio.sleep(900)
            assert mesh.connections() == {"client": 1, NSMGR: 1, FORWARDER: 1, "shop": 1}
            assert record.closes == []
            assert len(record.requests) > 2
            assert (await client.request(again(connection))).context == connection.context
