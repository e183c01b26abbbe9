"""Several endpoints of a vL3 in one mesh, without a kernel: who connects to whom, with which routes and names."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from nsm.apis.connection import Mechanism
from nsm.apis.registry import Destination, Match
from nsm.chains.composed import client, monitors, registry_at, services_at
from nsm.chains.core import Begin, Chain, Conflict, Element, Limits, MeshError, Refused, Tasks
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.retry import Retry
from nsm.chains.elements.vl3_mtu import SmallestMtu
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.model.networks import NO_NETWORKS
from nsm.chains.model.vl3 import Share, whole_of
from nsm.chains.testing import Mesh, call
from nsm.chains.testing.mesh import MANAGER
from nsm.chains.transport import RemoteNetworkService
from nsm.services.nse_vl3.main import vl3_client, vl3_server
from nsm.services.nse_vl3.names import Names
from nsm.services.nse_vl3.peers import KEPT, LOOK, Peers, PeerWires, Selection

TEMPLATE = "{{ .Labels.podName }}.{{ .NetworkService }}"


class Alive:
    """Packets pass on every wire."""

    async def is_alive(self, connection):
        return True

    def watch(self, connection, on_down):
        return lambda: None


class Endpoint:
    """One endpoint; `errors` are those of requests to others."""

    def __init__(self, mesh, name, prefix):
        self.mesh, self.name, self.network = mesh, name, Vl3Network(1)
        self.names, self.mtu, self.errors, self.tasks = Names(), SmallestMtu(), [], Tasks(name)
        self.peers = Peers(name, ["vl3"], registry_at(mesh.url(MANAGER), mesh.pool(name)), Limits())
        self.use(prefix)

    def use(self, prefix):
        network = ip_network(prefix)
        self.network.set(0, Share(network, whole_of(network)))

    async def start(self):
        kernel = KernelClient()
        elements = vl3_server(self.network, self.peers, self.names, self.mtu, [TEMPLATE], kernel.names)
        self.chain = client(
            self.name,
            vl3_client(self.network, self.names, self.mtu, kernel, lambda: NO_NETWORKS),
            RemoteNetworkService(self.mesh.pool(self.name)),
            first=[Retry(tell=lambda _, error, __: self.errors.append(error))],
            url=self.mesh.url(MANAGER),
            refresh=True,
            heal=Heal(monitors(self.mesh.pool(self.name)), Alive()),
        )
        self.wires = PeerWires(self.chain, self.name, "vl3", {}, self.tasks)
        await self.mesh.add_endpoint(self.name, elements, services=["vl3"])
        self.tasks.spawn(self.peers.run(self.wires.follow), name="endpoints")
        return self

    async def stop(self):
        await self.tasks.aclose()
        await self.chain.aclose()


@asynccontextmanager
async def endpoints(*prefixes):
    """A mesh with an endpoint for each prefix, the oldest first."""
    async with Mesh() as mesh:
        started = []
        for number, prefix in enumerate(prefixes):
            started.append(await Endpoint(mesh, f"vl3-{number}", prefix).start())
            await asyncio.sleep(0.001)
        try:
            await asyncio.sleep(2)
            yield mesh, *started
        finally:
            for each in started:
                await each.stop()


async def ask(mesh, name, **fields):
    kernel = [Mechanism(cls="LOCAL", type="KERNEL")]
    return await mesh.add_client(name).request(call("c", "vl3", preferences=kernel, labels={"podName": name}, **fields))


async def test_each_endpoint_is_a_client_of_all_older_ones():
    async with endpoints("172.16.0.0/24", "172.16.1.0/24", "172.16.2.0/24") as (mesh, first, second, third):
        assert [len(each.wires) for each in (first, second, third)] == [0, 1, 2]
        assert [len(mesh.begins[each.name]) for each in (first, second, third)] == [2, 1, 0]
        assert not [*first.errors, *second.errors, *third.errors]


async def test_names_are_found_at_every_endpoint():
    """Each endpoint knows the DNS servers of all others, of older and of younger ones."""
    async with endpoints("172.16.0.0/24", "172.16.1.0/24", "172.16.2.0/24") as (_, *found):
        servers = [set(each.names.servers) for each in found]
    assert servers == [{"172.16.1.0", "172.16.2.0"}, {"172.16.0.0", "172.16.2.0"}, {"172.16.0.0", "172.16.1.0"}]


async def test_clients_have_addresses_names_and_routes_of_their_endpoint():
    async with endpoints("172.16.0.0/24", "172.16.1.0/24") as (mesh, *found):
        contexts = [(await ask(mesh, name)).context for name in ("alice", "bob")]
        own = sorted(each.ip_context.src_ip_addrs[0] for each in contexts)
        assert own == ["172.16.0.1/32", "172.16.1.1/32"]
        assert {each.dns_context.configs[0].search_domains[0] for each in contexts} == {"vl3"}
        assert sum(len(each.names) for each in found) == 2


async def test_an_endpoint_that_returns_is_connected_again():
    async with endpoints("172.16.0.0/24", "172.16.1.0/24") as (mesh, first, second):
        await second.stop()
        await mesh.remove("vl3-1")
        again = await Endpoint(mesh, "vl3-1", "172.16.1.0/24").start()
        try:
            await asyncio.sleep(2)
            assert len(again.wires) == 1
            assert set(first.names.servers) == {"172.16.1.0"}
            assert set(again.names.servers) == {"172.16.0.0"}
        finally:
            await again.stop()


async def test_the_younger_of_two_endpoints_with_one_prefix_is_told():
    async with endpoints("172.16.0.0/24", "172.16.0.0/24") as (_, first, second):
        assert not first.errors
        assert isinstance(second.errors[0], Conflict)
        assert second.errors[0].element == "vl3_ipam"
        assert "each endpoint of a vL3 needs a prefix of its own" in str(second.errors[0])
        second.use("172.16.7.0/24")
        await asyncio.sleep(30)
        assert set(first.names.servers) == {"172.16.7.0"}


async def test_other_endpoints_learn_a_new_prefix():
    async with endpoints("172.16.0.0/24", "172.16.1.0/24") as (_, first, second):
        second.use("172.16.9.0/24")
        await asyncio.sleep(2)
        assert set(first.names.servers) == {"172.16.9.0"}
        first.use("172.16.8.0/24")
        await asyncio.sleep(60)
        assert set(second.names.servers) == {"172.16.8.0"}


async def test_a_client_with_the_name_of_an_endpoint_is_refused():
    """It could bring a prefix, and receive the packets for it."""
    async with endpoints("172.16.0.0/24", "172.16.1.0/24") as (mesh, *_):
        mesh._identities["vl3-1"] = mesh.identity("impostor")
        mesh._pools.pop("vl3-1")
        with pytest.raises(Refused, match="the endpoint vl3-1 was registered by spiffe://test.mesh/vl3-1"):
            await ask(mesh, "vl3-1", network_service_endpoint_name="vl3-0")


async def test_without_the_registry_known_endpoints_stay_connected():
    async with endpoints("172.16.0.0/24", "172.16.1.0/24") as (mesh, first, second):
        await mesh.remove("registry")
        await asyncio.sleep(20)
        assert len(second.wires) == 1
        with pytest.raises(MeshError):
            await ask(mesh, "x", network_service_endpoint_name="nobody")
        await mesh.start("registry")
        await asyncio.sleep(20)
        assert (len(first.wires), len(second.wires)) == (0, 1)


LEADS = Match(source_selector={"capability": "vl3"}, routes=[Destination(destination_selector={"capability": "vl3"})])
NEAR = Match(routes=[Destination(destination_selector={"nodeName": "{{ .nodeName }}"})], fallthrough=True)


@pytest.mark.parametrize(
    ("matches", "labels", "selected"),
    [
        ([], {"capability": "vl3"}, ["other", "supplier"]),
        ([LEADS, NEAR], {"capability": "vl3"}, ["other"]),
        ([LEADS, NEAR], {"app": "a"}, ["other", "supplier"]),
        ([NEAR], {"capability": "vl3"}, ["other", "supplier"]),
    ],
    ids=["no matches", "its match", "other labels", "matches of clients"],
)
async def test_an_endpoint_requests_no_wire_to_one_that_starts_others(matches, labels, selected):
    """A match for the labels of such wires selects their endpoints; those for clients do not concern them."""
    async with Mesh() as mesh, Tasks("test") as tasks:
        await mesh.add_service("vl3", matches)
        for name in ("supplier", "other", "own"):
            has = {} if name == "supplier" else {"capability": "vl3"}
            await mesh.add_endpoint(name, [], services=["vl3"], **has)
            await asyncio.sleep(0.001)
        pool, url = mesh.pool("own"), mesh.url(MANAGER)
        selection = Selection("vl3", labels, services_at(url, pool), Limits())
        found, peers = [], Peers("own", ["vl3"], registry_at(url, pool), Limits(), selection)
        tasks.spawn(peers.run(lambda older, _registered: found.append(sorted(older))), name="endpoints")
        await asyncio.sleep(2)
    assert found[-1] == selected
    assert all(set(each) <= set(selected) for each in found)


class Answers(Alive):
    """Packets pass on wires to `there`."""

    def __init__(self, *there):
        self.there = set(there)

    async def is_alive(self, connection):
        return connection.network_service_endpoint_name in self.there


class Ends(Element):
    """The end of the chain: notes what is closed."""

    def __init__(self):
        self.closed = []

    async def close(self, call, rest):
        self.closed.append(call.connection.network_service_endpoint_name)


async def test_the_wire_to_an_endpoint_that_is_started_again_is_kept_while_it_is_not_registered():
    """Its namespace goes on forwarding packets; without it they would not pass until it is back."""
    ends, liveness = Ends(), Answers("first", "second")
    async with Tasks("test") as tasks, Chain([Begin(), ends]) as chain:
        wires = PeerWires(chain, "own", "vl3", {}, tasks, liveness)
        wires.follow(["first", "second"], {"first", "second", "own"})
        await asyncio.sleep(10)
        wires.follow(["second"], {"second", "own"})
        await asyncio.sleep(10)
        wires.follow(["first", "second"], {"first", "second", "own"})
        await asyncio.sleep(2 * KEPT)
        assert (ends.closed, len(wires)) == ([], 2)
        wires.follow(["first"], {"first", "own"})
        await asyncio.sleep(10)
        liveness.there.clear()
        await asyncio.sleep(2 * LOOK)
        assert (ends.closed, len(wires)) == (["second"], 1)


async def test_a_wire_does_not_outlive_its_endpoint_by_more_than_a_minute_or_a_change_of_roles():
    ends = Ends()
    async with Tasks("test") as tasks, Chain([Begin(), ends]) as chain:
        wires = PeerWires(chain, "own", "vl3", {}, tasks, Answers("gone", "younger"))
        wires.follow(["gone", "younger"], {"gone", "younger", "own"})
        await asyncio.sleep(1)
        wires.follow([], {"younger", "own"})
        await asyncio.sleep(1)
        assert ends.closed == ["younger"]
        await asyncio.sleep(KEPT + 1)
        assert ends.closed == ["younger", "gone"]
