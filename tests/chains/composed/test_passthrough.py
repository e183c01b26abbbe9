"""Chains of services: each endpoint is a client of the next one, and all of their wires live and end together."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import ConnectionEventType, MonitorScopeSelector, State
from nsm.apis.registry import Destination, Match
from nsm.chains.composed import monitors, passthrough
from nsm.chains.core import InvalidRequest
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Mesh, Record, call
from nsm.chains.transport import RemoteMonitor


class Joints:
    """Stands in for the kernel: which pairs are joined."""

    def __init__(self):
        self.pairs, self.is_closed = {}, False

    def join(self, pair, on_joined):
        if pair.client_side not in self.pairs:
            on_joined(pair.client_side, pair.server_side)
        self.pairs[pair.client_side] = pair

    async def leave(self, client_side):
        self.pairs.pop(client_side, None)

    async def aclose(self):
        self.is_closed = True


class Composition:
    """A service whose clients pass `stages`, one after the other, on the way to the endpoint `gateway`."""

    def __init__(self, mesh, *stages):
        self.mesh, self.stages = mesh, stages
        self.joints = {stage: Joints() for stage in stages}
        self.joined, self.records = [], {stage: Record() for stage in stages}
        self.gateway = Record()

    async def start(self):
        ways = zip(self.stages, [*self.stages[1:], "gateway"], strict=True)
        await self.mesh.add_service("shop", [*[match(to, app=stage) for stage, to in ways], match(self.stages[0])])
        for stage in self.stages:
            await self.add(stage)
        await self.add_gateway()

    async def add(self, stage, name=None, labels=None):
        name = name or stage
        elements = passthrough(
            name,
            self.mesh.pool(name),
            url=self.mesh.url("nsmgr"),
            labels=labels or {"app": stage},
            joiner=self.joints.setdefault(name, Joints()),
            elements=[self.records.setdefault(name, Record())],
            on_joined=lambda *ends: self.joined.append((name, *ends)),
        )
        return await self.mesh.add_endpoint(name, elements, services=["shop"], app=stage)

    async def add_gateway(self, name="gateway", prefix="10.1.0.0/24"):
        chain = [self.gateway, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
        await self.mesh.add_endpoint(name, chain, services=["shop"], app="gateway")


def match(to, **source):
    return Match(source_selector=source, routes=[Destination(destination_selector={"app": to})])


@pytest.fixture
async def mesh():
    async with Mesh() as running:
        yield running


@pytest.fixture
async def chain(mesh):
    made = Composition(mesh, "firewall", "pass-1", "pass-2")
    await made.start()
    return made


def names(connection):
    return [segment.name for segment in connection.path.path_segments]


async def test_a_clients_request_passes_each_stage_on_the_way_to_the_endpoint(mesh, chain):
    """The client sees the addresses of the last one, its own labels, and the first one as its endpoint."""
    connection = await mesh.add_client().request(call("c", "shop", labels={"who": "me"}))
    between = ["nsmgr", "forwarder"]
    assert names(connection) == [
        "client", *between, "firewall", *between, "pass-1", *between, "pass-2", *between, "gateway",
    ]  # fmt: skip
    assert connection.context.ip_context.dst_ip_addrs == ["10.1.0.0/32"]
    assert connection.network_service_endpoint_name == "firewall"
    assert connection.labels["who"] == "me"
    assert chain.records["pass-1"].requests[0].connection.labels["app"] == "firewall"
    assert chain.gateway.requests[0].connection.labels["app"] == "pass-2"


async def test_each_stage_joins_a_pair_of_interfaces_and_tells_when(mesh, chain):
    """Both are bare, named after the connection, and the same ones when the client asks again."""
    client = mesh.add_client()
    first = await client.request(call("c", "shop"))
    asked = call("c")
    asked.connection = codec.clone(first)
    await client.request(asked)
    assert [name for name, *_ in chain.joined] == ["pass-2", "pass-1", "firewall"]
    for stage, joints in chain.joints.items():
        (pair,) = joints.pairs.values()
        assert (pair.client_side, pair.server_side) == (f"in-{pair.mark}", f"out-{pair.mark}"), stage
        assert pair.client_addresses == ("10.1.0.1/32",)
        assert pair.server_addresses == ("10.1.0.0/32",)
    (asked_by_forwarder,) = chain.gateway.requests[:1]
    assert "bare" not in asked_by_forwarder.mechanism_preferences[0].parameters


async def test_a_close_ends_all_wires_of_a_chain(mesh, chain):
    client = mesh.add_client()
    await client.request(call("c", "shop"))
    assert mesh.connections()["pass-2"] == 1
    await client.close(call("c"))
    assert mesh.connections() == {}
    assert all(not joints.pairs for joints in chain.joints.values())


async def test_nothing_is_left_of_a_chain_whose_last_endpoint_refuses(mesh, chain):
    await mesh.remove("gateway")
    with pytest.raises(Exception, match="gateway|no endpoint of .shop. matches labels"):
        await mesh.add_client().request(call("c", "shop", timeout=5))
    assert {name: count for name, count in mesh.connections().items() if name != "client"} == {}
    assert all(not joints.pairs for joints in chain.joints.values())


async def states_at(mesh, name, segment):
    """The states of connections that the component `name` reports."""
    found = []

    async def listen():
        async for event in RemoteMonitor(mesh.pool(segment), mesh.url(name)).monitor(MonitorScopeSelector()):
            found.extend((event.type, each.state) for each in event.connections.values())

    return found, asyncio.ensure_future(listen())


async def test_a_dead_last_endpoint_is_down_at_the_first_client(mesh, chain):
    await mesh.add_client().request(call("c", "shop"))
    found, listening = await states_at(mesh, "nsmgr", "client")
    await asyncio.sleep(1)
    assert found == [(ConnectionEventType.INITIAL_STATE_TRANSFER, State.UP)]
    await mesh.remove("gateway")
    await asyncio.sleep(1)
    assert found[-1] == (ConnectionEventType.UPDATE, State.DOWN)
    listening.cancel()


async def test_a_client_heals_through_the_stages_to_another_endpoint(mesh, chain):
    """They have no heal of their own: the client's request chooses again, everywhere."""

    class Packets:
        passing = True

        async def is_alive(self, _connection):
            return self.passing

        def watch(self, _connection, _on_down):
            return lambda: None

    packets = Packets()
    heal = Heal(monitors(mesh.pool("client")), packets)
    client = mesh.add_client(refresh=True, heal=heal)
    await client.request(call("c", "shop", timeout=15))
    await chain.add_gateway("gateway-2", "10.2.0.0/24")
    await asyncio.sleep(6)
    packets.passing = False
    await mesh.remove("gateway")
    await asyncio.sleep(2)
    packets.passing = True
    await asyncio.sleep(8)
    assert mesh.connections()["gateway-2"] == 1
    (pair,) = chain.joints["pass-2"].pairs.values()
    assert "10.2.0.0/32" in pair.server_addresses


async def test_a_chain_that_leads_back_to_itself_is_refused_with_its_path(mesh):
    """And not when the path is full, 64 segments further on."""
    chain = Composition(mesh, "firewall", "pass-1")
    await mesh.add_service(
        "shop", [match("pass-1", app="firewall"), match("firewall", app="pass-1"), match("firewall")]
    )
    for stage in chain.stages:
        await chain.add(stage)
    with pytest.raises(InvalidRequest) as caught:
        await mesh.add_client().request(call("c", "shop", timeout=5))
    error = str(caught.value)
    assert "the chain of 'shop' leads back to itself: client → nsmgr → forwarder → firewall → " in error
    assert "→ pass-1 → nsmgr → forwarder → firewall; a match of the service sends clients with the labels" in error
    assert len(chain.records["pass-1"].requests) == 1
    assert {name: count for name, count in mesh.connections().items() if name != "client"} == {}


async def test_replicas_of_a_stage_notice_a_chain_that_leads_back_to_them(mesh):
    """They have other names: else each of them would try all others, those that it tried before among them."""
    chain = Composition(mesh)
    await mesh.add_service("shop", [match("firewall")])
    for replica in ("firewall-a", "firewall-b", "firewall-c"):
        await chain.add("firewall", replica)
    with pytest.raises(InvalidRequest, match="leads back to itself"):
        await mesh.add_client().request(call("c", "shop", timeout=5))


async def test_a_restarted_stage_finds_its_interfaces_by_their_names(mesh, chain):
    client = mesh.add_client()
    first = await client.request(call("c", "shop"))
    before = set(chain.joints["pass-1"].pairs)
    await mesh.remove("pass-1")
    chain.joints["pass-1"] = Joints()
    await chain.add("pass-1")
    asked = call("c", timeout=5)
    asked.connection = codec.clone(first)
    again = await client.request(asked)
    assert set(chain.joints["pass-1"].pairs) == before
    assert again.context.ip_context == first.context.ip_context
