"""A supplier starts an endpoint for a client, and has the client request again."""

import asyncio

import pytest

from nsm.apis.registry import Destination, Match
from nsm.chains.composed import registry_at
from nsm.chains.core import NotFound, Unavailable
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.supply import Supply
from nsm.chains.testing import Mesh, call


class Supplier:
    """Starts an endpoint in memory, after `seconds`."""

    def __init__(self, mesh, seconds=1.0, error=None):
        self.mesh, self.seconds, self.error, self.asked, self.tasks = mesh, seconds, error, [], []

    async def supply(self, connection):
        if self.error is not None:
            raise self.error
        if not self.asked:
            self.tasks.append(asyncio.ensure_future(self._start()))
        self.asked.append(dict(connection.labels))
        return "shop-1"

    async def _start(self):
        await asyncio.sleep(self.seconds)
        chain = [Point2PointIpam(["10.1.0.0/24"]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
        await self.mesh.add_endpoint("shop-1", chain, services=["shop"], app="shop")


@pytest.fixture
async def mesh():
    async with Mesh() as running:
        routes = [
            Match(fallthrough=True, routes=[Destination(destination_selector={"app": "shop"})]),
            Match(routes=[Destination(destination_selector={"app": "supplier"})]),
        ]
        await running.add_service("shop", routes)
        yield running


async def with_supplier(mesh, **options):
    supplier = Supplier(mesh, **options)
    registry = registry_at(mesh.url("nsmgr"), mesh.pool("supplier"))
    await mesh.add_endpoint("supplier", [Supply(supplier, registry)], services=["shop"], app="supplier")
    return supplier


async def test_a_client_gets_a_wire_to_an_endpoint_that_was_started_for_it(mesh):
    supplier = await with_supplier(mesh)
    client = mesh.add_client(elements=[])
    with pytest.raises(Unavailable, match="the endpoint 'shop-1' was started for this request; request again"):
        await client.request(call("c", "shop", labels={"who": "me"}, timeout=10))
    connection = await client.request(call("c", "shop", labels={"who": "me"}, timeout=10))
    assert connection.network_service_endpoint_name == "shop-1"
    assert [labels["who"] for labels in supplier.asked] == ["me"]


async def test_an_endpoint_that_takes_longer_than_the_client_waits_is_there_at_the_next_request(mesh):
    await with_supplier(mesh, seconds=20)
    client = mesh.add_client()
    with pytest.raises(Unavailable, match="the endpoint 'shop-1' is being started; request again"):
        await client.request(call("c", "shop", timeout=5))
    await asyncio.sleep(20)
    assert (await client.request(call("c", "shop", timeout=5))).network_service_endpoint_name == "shop-1"


async def test_a_supplier_that_cannot_start_anything_says_why(mesh):
    await with_supplier(mesh, error=NotFound("no endpoint of 'shop' is on demand"))
    with pytest.raises(NotFound, match="no endpoint of 'shop' is on demand"):
        await mesh.add_client().request(call("c", "shop", timeout=5))
    assert {name for name in mesh.connections() if name != "client"} == set()
