"""Editing a network service moves the clients that it does not lead to their endpoint any more."""

import asyncio

import pytest

from nsm.apis.connection import MonitorScopeSelector, State
from nsm.apis.registry import Destination, Match, NetworkService
from nsm.chains.composed import monitors, services_client
from nsm.chains.core import Begin, Chain, NotFound, RegistryCall, RegistryChain, Unavailable
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.rematch import GRACE, Rematch
from nsm.chains.registry.memory import Memory
from nsm.chains.testing import Delay, Fail, Mesh, Record, call
from nsm.chains.testing.domains import Domains
from nsm.chains.transport import RemoteMonitor
from tests.chains.elements.records import nse, registry_of

ALL = MonitorScopeSelector()


class World:
    """A mesh with the endpoints `red` and `blue` of one service, which leads to `red`."""

    def __init__(self, mesh):
        self.mesh, self.record, self.fail = mesh, Record(), {}

    async def begin(self):
        for name, prefix in (("red", "10.1.0.0/24"), ("blue", "10.2.0.0/24")):
            self.fail[name] = Fail()
            ipam = Point2PointIpam([prefix])
            chain = [self.fail[name], ipam, Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
            await self.mesh.add_endpoint(name, chain, services=["shop"], color=name)
        await self.lead_to("red")
        await asyncio.sleep(1)

    async def lead_to(self, color):
        match = Match(routes=[Destination(destination_selector={"color": color})])
        await self.edit(NetworkService(name="shop", payload="IP", matches=[match]))

    async def edit(self, service, *, delete=False):
        async with services_client(self.mesh.url("nsmgr"), self.mesh.pool("red")) as registered:
            await registered.register(RegistryCall(service))
            if delete:
                await registered.unregister(RegistryCall(service))

    def client(self, *, heals=True):
        heal = Heal(monitors(self.mesh.pool("client"))) if heals else None
        return self.mesh.add_client(elements=[self.record], refresh=True, heal=heal)


@pytest.fixture
async def world():
    async with Mesh() as mesh:
        made = World(mesh)
        await made.begin()
        yield made


async def test_a_client_whose_endpoint_is_not_meant_any_more_moves_at_once(world):
    client = world.client()
    connection = await client.request(call("c", "shop", timeout=5))
    assert connection.network_service_endpoint_name == "red"
    await world.lead_to("blue")
    await asyncio.sleep(1)
    assert world.mesh.connections() == {"client": 1, "nsmgr": 1, "forwarder": 1, "blue": 1}
    assert len(world.record.closes) == 1


async def test_others_stay(world):
    client = world.client()
    await client.request(call("c", "shop", timeout=5))
    await world.edit(NetworkService(name="shop", payload="IP"))
    await world.edit(NetworkService(name="other", payload="IP"))
    await asyncio.sleep(10)
    assert len(world.record.requests) == 1
    assert world.mesh.connections() == {"client": 1, "nsmgr": 1, "forwarder": 1, "red": 1}


async def test_a_client_that_does_not_listen_loses_the_connection_and_is_told(world):
    """Upstream's does: it takes the end of the connection for a reason to heal."""
    client = world.client(heals=False)
    await client.request(call("c", "shop", timeout=5))
    heard = []

    async def hear():
        async for event in RemoteMonitor(world.mesh.pool("client"), world.mesh.url("nsmgr")).monitor(ALL):
            heard.extend((event.type.name, each.state) for each in event.connections.values())

    hearing = asyncio.ensure_future(hear())
    await asyncio.sleep(1)
    await world.lead_to("blue")
    await asyncio.sleep(1)
    assert heard[1:] == [("UPDATE", State.RESELECT_REQUESTED)]
    assert world.mesh.connections()["red"] == 1
    await asyncio.sleep(2)
    assert [kind for kind, _ in heard[2:]] == ["DELETE"]
    assert "red" not in world.mesh.connections()
    hearing.cancel()


async def test_it_also_moves_after_a_refresh_that_failed(world):
    """Upstream's watch ends with the refresh that fails."""
    client = world.client()
    await client.request(call("c", "shop", timeout=5))
    world.fail["red"].errors = [Unavailable("out of order")]
    with pytest.raises(Unavailable):
        await client.request(call("c", "shop", timeout=5, network_service_endpoint_name="red"))
    await asyncio.sleep(10)
    await world.lead_to("blue")
    await asyncio.sleep(3)
    assert world.mesh.connections() == {"client": 1, "nsmgr": 1, "forwarder": 1, "blue": 1}


async def test_it_also_moves_after_the_registry_was_away(world):
    client = world.client()
    await client.request(call("c", "shop", timeout=5))
    await world.mesh.remove("registry")
    await asyncio.sleep(5)
    await world.mesh.start("registry")
    await asyncio.sleep(20)
    await world.lead_to("blue")
    await asyncio.sleep(3)
    assert world.mesh.connections() == {"client": 1, "nsmgr": 1, "forwarder": 1, "blue": 1}


async def test_a_wire_stays_when_its_network_service_is_deleted(world):
    client = world.client()
    await client.request(call("c", "shop", timeout=5))
    await world.edit(NetworkService(name="shop", payload="IP"), delete=True)
    await asyncio.sleep(60)
    assert world.mesh.connections()["red"] == 1


async def test_a_client_for_whom_nothing_is_left_reads_why(world):
    client = world.client()
    await client.request(call("c", "shop", timeout=5))
    await world.lead_to("green")
    await asyncio.sleep(3)
    assert "red" not in world.mesh.connections()
    with pytest.raises(NotFound, match="no endpoint of 'shop' matches labels"):
        await client.request(call("c", "shop", timeout=5))


def service_to(color):
    match = Match(routes=[Destination(destination_selector={"color": color})])
    return NetworkService(name="svc", payload="IP", matches=[match])


class Alone:
    """The element by itself: a service that leads to `red`, and one connection to that."""

    async def __aenter__(self):
        endpoints = registry_of(nse("red", color="red"), nse("blue", color="blue"))
        self.begin, self.delay, self.services = Begin(), Delay(), registry_of(service_to("red"))
        self.chain = Chain([self.begin, Rematch(self.services, endpoints), self.delay])
        await self.request("red")
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_):
        await self.chain.aclose()

    async def request(self, endpoint):
        return await self.chain.request(call("c", "svc", network_service_endpoint_name=endpoint, timeout=15))

    async def edit(self, color):
        await self.services.register(RegistryCall(service_to(color)))


async def test_a_connection_that_moves_in_the_moment_in_which_it_would_be_closed_stays():
    """It was closed at its new endpoint: its request had not ended when its time was over."""
    async with Alone() as world:
        await world.edit("blue")
        await asyncio.sleep(GRACE - 0.5)
        world.delay.gate.clear()
        moving = asyncio.ensure_future(world.request("blue"))
        await asyncio.sleep(1)
        world.delay.gate.set()
        await moving
        await asyncio.sleep(1)
        assert "c" in world.begin


async def test_a_service_that_is_edited_back_at_once_ends_no_connection():
    async with Alone() as world:
        await world.edit("blue")
        await asyncio.sleep(GRACE / 2)
        await world.edit("red")
        await asyncio.sleep(2 * GRACE)
        assert "c" in world.begin
        await world.edit("blue")
        await asyncio.sleep(2 * GRACE)
        assert "c" not in world.begin


async def test_nothing_is_left_of_connections_that_ended():
    rematch = Rematch(RegistryChain([Memory()]), RegistryChain([Memory()]))
    async with Chain([Begin(), rematch]) as chain:
        await chain.request(call("c", "shop"))
        await chain.request(call("d", "gym"))
        assert set(rematch._standing) == {"shop", "gym"}
        await chain.close(call("c"))
        await chain.close(call("d"))
        assert rematch._standing == {}


@pytest.mark.parametrize("floating", [False, True])
async def test_a_client_of_another_domain_s_service_moves_when_it_is_edited_there(floating):
    """Also if the service is in a third domain, where none of the path's managers is."""
    async with Domains("one", "two", floating=["sky"]) as (one, two, sky):
        where, at = (sky, two) if floating else (two, two)
        suffix = "@sky" if floating else ""
        world = World(at)
        for name, prefix in (("red", "10.1.0.0/24"), ("blue", "10.2.0.0/24")):
            chain = [Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
            await at.add_endpoint(f"{name}{suffix}", chain, services=[f"shop{suffix}"], color=name)

        async def lead_to(color):
            match = Match(routes=[Destination(destination_selector={"color": color})])
            service = NetworkService(name=f"shop{suffix}", payload="IP", matches=[match])
            await world.edit(service)

        await lead_to("red")
        await asyncio.sleep(1)
        heal = Heal(monitors(one.pool("client")))
        client = one.add_client(refresh=True, heal=heal)
        connection = await client.request(call("c", f"shop@{where.name}", timeout=5))
        assert connection.network_service_endpoint_name.startswith("red")
        await lead_to("blue")
        await asyncio.sleep(5)
        held = {name.partition("@")[0]: count for name, count in at.connections().items()}
        assert (held.get("red", 0), held.get("blue", 0)) == (0, 1)
        await client.close(call("c"))
        await asyncio.sleep(1)
        assert not [task for task in asyncio.all_tasks() if "watch of services shop" in task.get_name()]
