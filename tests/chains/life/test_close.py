"""A Close cannot be refused by what happened in between: it removes what its path names, and nothing of others."""

import asyncio
from contextlib import suppress

import pytest

from nsm.apis import codec
from nsm.chains.core import MeshError
from nsm.chains.testing import Delay, Record, call

from .meshes import FORWARDER, NSMGR, REGISTRY, mesh_with, restart


async def made(mesh, name="client"):
    client = mesh.add_client(name)
    return client, await client.request(call(f"{name}-1", "shop", timeout=5))


def closing(connection):
    """A Close by a client that knows the whole path."""
    closed = call(connection.id, timeout=5)
    closed.connection = codec.clone(connection)
    return closed


@pytest.mark.parametrize("gone", [[NSMGR], [FORWARDER], [NSMGR, FORWARDER]], ids="+".join)
async def test_a_close_reaches_every_hop_also_by_components_that_restarted(gone):
    record = Record()
    async with mesh_with(record) as mesh:
        client, connection = await made(mesh)
        await restart(mesh, *gone)
        await client.close(closing(connection))
        assert mesh.connections() == {}
        assert len(record.closes) == 1


async def test_11_6_the_final_close_reaches_every_hop_when_the_registry_is_dead():
    record = Record()
    async with mesh_with(record) as mesh:
        client, connection = await made(mesh)
        await mesh.remove(REGISTRY)
        await client.close(closing(connection))
        assert mesh.connections() == {}
        assert len(record.closes) == 1


async def test_11_6_a_plain_refresh_closes_nothing():
    record = Record()
    async with mesh_with(record) as mesh:
        client, connection = await made(mesh)
        for _ in range(3):
            connection = await client.request(closing(connection))
        assert (len(record.requests), len(record.closes)) == (4, 0)


async def test_11_5_a_forwarder_that_restarted_keeps_the_connection_and_the_endpoint_gets_no_close():
    record = Record()
    async with mesh_with(record) as mesh:
        client, connection = await made(mesh)
        await restart(mesh, FORWARDER)
        again = await client.request(closing(connection))
        assert [each.id for each in again.path.path_segments] == [each.id for each in connection.path.path_segments]
        assert again.context == connection.context
        assert record.closes == []


async def test_a_close_of_the_restarted_client_ends_what_its_predecessor_made():
    async with mesh_with() as mesh:
        _, connection = await made(mesh)
        successor = mesh.add_client("client")
        await successor.close(closing(connection))
        assert "shop" not in mesh.connections()
        assert not {NSMGR, FORWARDER} & {*mesh.connections()}


async def test_a_close_ends_what_is_here_when_the_endpoint_is_gone():
    async with mesh_with() as mesh:
        client, connection = await made(mesh)
        await mesh.remove("shop")
        with pytest.raises(MeshError):
            await client.close(closing(connection))
        assert mesh.connections() == {}


async def test_a_close_by_a_workload_that_knows_the_path_ends_nothing():
    """Also at components that restarted, and so do not know whose it was: the ids say it."""
    async with mesh_with() as mesh:
        _, connection = await made(mesh)
        thief = mesh.add_client("thief")
        stolen = codec.clone(connection)
        stolen.path.path_segments[0].name, stolen.path.path_segments[0].id = "thief", "mine"
        stolen.id = "mine"
        for gone in ([], [NSMGR], [FORWARDER], [NSMGR, FORWARDER]):
            await restart(mesh, *gone)
            with suppress(MeshError):
                await thief.close(closing(stolen))
            assert mesh.connections()["shop"] == 1


# --- a request that fails does not end what stood


@pytest.mark.parametrize("gone", [[], [NSMGR], [FORWARDER], [NSMGR, FORWARDER]], ids="+".join)
async def test_a_refresh_that_is_cancelled_leaves_the_wire_also_in_components_that_restarted(gone):
    record, delay = Record(), Delay()
    async with mesh_with(record, delay) as mesh:
        client, connection = await made(mesh)
        await restart(mesh, *gone)
        delay.gate.clear()
        asking = asyncio.ensure_future(client.request(closing(connection)))
        await asyncio.sleep(1)
        assert delay.waiting == 1
        asking.cancel()
        await asyncio.sleep(1)
        delay.gate.set()
        await asyncio.sleep(20)
        assert (record.closes, mesh.connections()["shop"]) == ([], 1)
        assert (await client.request(closing(connection))).context == connection.context


@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.25])
async def test_a_first_request_whose_caller_went_away_is_undone_along_the_path(seconds):
    """Wherever it is just then: before the endpoint has answered, or on the way back."""
    record, delay = Record(), Delay(0.1)
    async with mesh_with(record, delay, Delay(0.2)) as mesh:
        asking = asyncio.ensure_future(mesh.add_client().request(call("c", "shop", timeout=5)))
        await asyncio.sleep(seconds)
        asking.cancel()
        await asyncio.sleep(5)
        assert mesh.connections() == {}
