"""What is absent ends nothing that lives: a wire that stands needs nobody but those who make it."""

import asyncio

from nsm.apis import codec
from nsm.chains.testing import Record, call
from nsm.chains.testing.clock import wall_clock

from .meshes import FORWARDER, NSMGR, REGISTRY, mesh_with

LONG = 200
"""Seconds: three times as long as a token lives."""


async def made(mesh, name="client", **options):
    client = mesh.add_client(name, **options)
    return client, await client.request(call(f"{name}-1", "shop", timeout=5))


def again(connection):
    """A refresh."""
    asked = call(connection.id, timeout=5)
    asked.connection = codec.clone(connection)
    return asked


async def test_a_wire_stands_while_the_registry_is_away():
    record = Record()
    async with mesh_with(record, token_lifetime=60) as mesh:
        with wall_clock():
            _, connection = await made(mesh, refresh=True)
            await mesh.remove(REGISTRY)
            await asyncio.sleep(LONG)
            assert mesh.connections() == {"client": 1, NSMGR: 1, FORWARDER: 1, "shop": 1}
            assert record.closes == []
            assert len(record.requests) > LONG / 60
            assert record.requests[-1].connection.context == connection.context


async def test_a_refresh_asks_nobody_where_the_forwarder_and_the_endpoint_are():
    async with mesh_with() as mesh:
        client, connection = await made(mesh)
        asked = mesh.pool(NSMGR), mesh.pool(FORWARDER)
        await mesh.remove(REGISTRY)
        before = [{url: channel.calls for url, channel in pool._made.items()} for pool in asked]
        for _ in range(3):
            connection = await client.request(again(connection))
        after = [{url: channel.calls for url, channel in pool._made.items()} for pool in asked]
        assert before == after


async def test_11_10_the_descriptor_of_a_forwarder_that_could_not_register_again_is_kept():
    async with mesh_with() as mesh:
        with wall_clock():
            client, connection = await made(mesh)
            await mesh.remove(REGISTRY)
            await asyncio.sleep(130)  # its registration of before would have ended after 60
            connection = await client.request(again(connection))
            await mesh.start(REGISTRY)
            await asyncio.sleep(60)
            await client.request(again(connection))
            assert mesh.connections()["shop"] == 1


async def test_a_forwarder_that_restarts_while_the_registry_is_away_is_found_by_its_manager():
    """And so is the endpoint by the forwarder, which asks the manager."""
    async with mesh_with() as mesh:
        client, connection = await made(mesh)
        await mesh.remove(REGISTRY)
        await mesh.remove(FORWARDER)
        starting = asyncio.ensure_future(mesh.start(FORWARDER))
        await asyncio.sleep(30)
        same = await client.request(again(connection))
        assert same.context == connection.context
        assert [each.id for each in same.path.path_segments] == [each.id for each in connection.path.path_segments]
        await mesh.start(REGISTRY)
        await starting
