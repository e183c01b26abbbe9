"""A record ends with the process of its endpoint; time is virtual."""

import asyncio

import pytest

from nsm.apis.registry import NetworkServiceLabels
from nsm.chains.core import Peer, Presence, RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.end_with_socket import LATER, RETURNS, SOON, WIRES_ELSEWHERE, EndWithSocket
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from nsm.chains.testing import Delay
from tests.chains.registry.records import find, nse

NSE = "spiffe://test.mesh/nse"


class Reachable(RegistryElement):
    """A registry that may be away."""

    def __init__(self):
        self.is_away = False

    async def find(self, call, rest):
        if self.is_away:
            raise Unavailable("the registry is away")
        async for batch in rest.find(call):
            yield batch

    async def register(self, call, rest):
        if self.is_away:
            raise Unavailable("the registry is away")
        return await rest.register(call)


class Manager:
    """Its registry, and the sockets of endpoints at which someone listens."""

    def __init__(self):
        self.alive, self.tried, self.presence = set(), [], Presence()
        self.begin, self.delay, self.registry = RegistryBegin(), Delay(), Reachable()
        self.sockets = set()
        self.end = EndWithSocket(self.sockets, self.presence, self.listens, forwarders="forwarder")
        self.chain = RegistryChain([self.begin, self.end, self.delay, self.registry, SetRegistrationTime(), Memory()])

    async def listens(self, url):
        self.tried.append(url)
        return url in self.alive

    async def register(self, name, url, *, service="svc", who=NSE):
        self.alive.add(url)
        self.sockets.add(url)
        self.presence.arrived(who)
        await self.again(name, url, service=service, who=who)

    async def again(self, name, url, *, service="svc", who=NSE):
        record = nse(name, url=url)
        record.network_service_names = [service]
        await self.chain.register(RegistryCall(record, peer=Peer(who, b"")))

    def kill(self, url, who=NSE):
        self.alive.discard(url)
        self.presence.left(who)

    async def names(self):
        return [record.name for record in await find(self.chain)]


@pytest.fixture
async def manager():
    made = Manager()
    yield made
    await made.chain.aclose()


async def test_the_record_of_a_killed_endpoint_ends_with_it(manager):
    """Clients on all nodes were sent to it for up to a minute."""
    await manager.register("a", "unix:///a")
    await manager.register("b", "unix:///b")
    manager.kill("unix:///a")
    await asyncio.sleep(2 * SOON)
    assert await manager.names() == ["b"]
    assert len(manager.begin) == 1


async def test_an_endpoint_that_closes_a_channel_stays(manager):
    """With each new SVID, for example."""
    await manager.register("a", "unix:///a")
    manager.presence.left(NSE)
    await asyncio.sleep(2 * SOON)
    assert await manager.names() == ["a"]
    await asyncio.sleep(2 * LATER)
    assert await manager.names() == ["a"]
    assert manager.tried == ["unix:///a"] * 2


async def test_a_process_may_take_its_time_to_end(manager):
    await manager.register("a", "unix:///a")
    manager.presence.left(NSE)
    await asyncio.sleep(2 * SOON)
    manager.alive.clear()
    await asyncio.sleep(LATER)
    assert await manager.names() == []


async def test_other_identities_ends_are_no_reason_to_look(manager):
    await manager.register("a", "unix:///a")
    manager.presence.arrived("spiffe://test.mesh/nsc")
    manager.presence.left("spiffe://test.mesh/nsc")
    await asyncio.sleep(2 * SOON)
    assert manager.tried == []


async def test_a_forwarder_keeps_its_record(manager):
    """Its wires outlive it, and the next process of that name takes them over."""
    await manager.register("f", "unix:///f", service="forwarder")
    manager.kill("unix:///f")
    await asyncio.sleep(2 * SOON)
    assert await manager.names() == ["f"]


async def test_an_endpoint_that_is_back_by_then_stays(manager):
    await manager.register("a", "unix:///a")
    manager.kill("unix:///a")
    await manager.register("a", "unix:///new")
    await asyncio.sleep(2 * SOON)
    assert await manager.names() == ["a"]


async def test_an_endpoint_that_comes_back_in_the_moment_of_its_end_stays(manager):
    await manager.register("a", "unix:///a")
    manager.kill("unix:///a")
    manager.delay.gate.clear()
    back = asyncio.ensure_future(manager.register("a", "unix:///new"))
    await asyncio.sleep(2 * SOON)
    manager.delay.gate.set()
    await back
    await asyncio.sleep(SOON)
    assert await manager.names() == ["a"]


async def test_a_name_that_another_identity_has_taken_over_ends_with_the_process_of_that(manager):
    await manager.register("a", "unix:///a", who="spiffe://test.mesh/former")
    await manager.register("a", "unix:///new")
    manager.kill("unix:///a", "spiffe://test.mesh/former")
    await asyncio.sleep(2 * LATER)
    assert await manager.names() == ["a"]
    manager.kill("unix:///new")
    await asyncio.sleep(2 * SOON)
    assert await manager.names() == []


async def test_an_endpoint_that_ends_while_the_registry_is_away_may_come_back_before_that(manager):
    """Its registration stays, with which the manager keeps its new socket and finds it."""
    await manager.register("a", "unix:///a")
    manager.registry.is_away = True
    manager.kill("unix:///a")
    await asyncio.sleep(30)
    assert len(manager.begin) == 1
    manager.registry.is_away = False
    await asyncio.sleep(6)
    assert (len(manager.begin), await manager.names()) == (0, [])


async def test_nothing_is_left_of_a_registration_that_ended(manager):
    await manager.register("a", "unix:///a")
    await manager.chain.unregister(RegistryCall(nse("a"), peer=Peer(NSE, b"")))
    manager.kill("unix:///a")
    await asyncio.sleep(2 * SOON)
    assert (manager.tried, manager.end._of) == ([], {})


@pytest.mark.parametrize(
    ("away", "who", "is_as_old"),
    [(1.0, NSE, True), (RETURNS + 1, NSE, False), (1.0, "spiffe://test.mesh/other", False)],
    ids=["soon", "late", "another identity"],
)
async def test_an_endpoint_that_is_started_again_is_as_old_as_before(manager, away, who, is_as_old):
    """Endpoints of a vL3 would replace the wires between them when one of them is started again."""

    async def since():
        (record,) = await find(manager.chain)
        return record.initial_registration_time

    await manager.register("a", "unix:///a")
    before = await since()
    manager.kill("unix:///a")
    await asyncio.sleep(away)
    assert await manager.names() == []
    await manager.register("a", "unix:///new", who=who)
    assert (await since() == before) == is_as_old


async def test_the_record_of_an_endpoint_whose_wires_end_elsewhere_stays(manager):
    """By it the next process knows that there were clients before, whose addresses it must not give to others."""
    manager.alive.add("unix:///a")
    manager.sockets.add("unix:///a")
    manager.presence.arrived(NSE)
    labels = {"svc": NetworkServiceLabels(labels={WIRES_ELSEWHERE: "true"})}
    record = nse("a", url="unix:///a", network_service_labels=labels)
    await manager.chain.register(RegistryCall(record, peer=Peer(NSE, b"")))
    manager.kill("unix:///a")
    await asyncio.sleep(10 * LATER)
    assert await manager.names() == ["a"]
