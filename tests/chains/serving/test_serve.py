"""The process around an endpoint: what it registers, when it is ready, and what it leaves; over real sockets."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint
from nsm.chains.component import Runtime
from nsm.chains.composed import nsmgr, services_client
from nsm.chains.config import ConfigError, load
from nsm.chains.core import ENDPOINTS, SERVICES, Refused, RegistryCall, RegistryChain
from nsm.chains.identity import Authority
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.serving import EndpointConfig, Provided, ProviderConfig, serve_endpoint
from nsm.chains.testing import Record, identity_of
from nsm.chains.transport import Pool, RemoteRegistry, check_health, serve

AUTHORITY = Authority.create("test.mesh")


class Mesh:
    """A manager that is the registry too, and what asks it."""

    def __init__(self, url, pool):
        self.url, self.pool = url, pool

    async def found(self, kind, record):
        chain = RegistryChain([RegistryClientUrl(self.url)], RemoteRegistry(kind, self.pool))
        return [each.record async for batch in chain.find(RegistryCall(record)) for each in batch]

    async def endpoints(self):
        return await self.found(ENDPOINTS, NetworkServiceEndpoint())

    async def services(self):
        return {each.name: each.payload for each in await self.found(SERVICES, NetworkService())}


@pytest.fixture
async def mesh(tmp_path):
    identity, url = identity_of(AUTHORITY, "nsmgr"), f"unix://{tmp_path}/nsmgr.sock"
    async with Pool(identity) as pool, Pool(identity_of(AUTHORITY, "operator")) as asking:
        manager = nsmgr("nsmgr", identity, pool, own_url=url, registry_url=None)
        async with serve([url], manager.methods(), identity, name="nsmgr"):
            yield Mesh(url, asking)
        await manager.aclose()


@asynccontextmanager
async def serving(mesh, kind=EndpointConfig, elements=(), **variables):
    """An endpoint's task, once it is registered or has ended; it is stopped at the end."""
    config = load(kind, {"NSM_NAME": "shop", "NSM_CONNECT_TO": mesh.url, **variables}).config
    identity, stopping = identity_of(AUTHORITY, "shop"), asyncio.Event()
    async with Pool(identity) as pool:
        task = asyncio.create_task(serve_endpoint(config, Runtime(identity, pool, stopping), elements))
        while not task.done() and not await mesh.endpoints():
            await asyncio.sleep(0.01)
        try:
            yield task
        finally:
            stopping.set()
            await asyncio.wait([task], timeout=10)


async def test_an_endpoint_is_registered_as_its_variables_say_and_answers_for_its_health(mesh):
    variables = {"NSM_SERVICE_NAMES": "bread,cake", "NSM_LABELS": "app:shop,tier:gold", "NSM_PAYLOAD": "ETHERNET"}
    async with serving(mesh, NODE_NAME="node-7", **variables):
        (record,) = await mesh.endpoints()
        assert (record.name, record.network_service_names) == ("shop", ["bread", "cake"])
        labels = {"app": "shop", "tier": "gold", "nodeName": "node-7"}
        assert {name: each.labels for name, each in record.network_service_labels.items()} == {
            "bread": labels,
            "cake": labels,
        }
        assert await mesh.services() == {"bread": "ETHERNET", "cake": "ETHERNET"}


async def test_a_place_to_listen_that_is_named_is_taken_and_asked_for_its_health(mesh, tmp_path):
    url = f"unix://{tmp_path}/own.sock"
    async with serving(mesh, NSM_SERVICE_NAMES="bread", NSM_LISTEN_ON=url):
        assert await check_health(mesh.pool, url, "networkservice.NetworkService")
    assert not (tmp_path / "own.sock").exists()


async def test_services_have_payloads_and_labels_of_their_own_where_an_endpoint_says_so(mesh):
    class Config(ProviderConfig):
        def provided(self):
            return [Provided("bread", "IP", {"crust": "dark"}), Provided("cake", "ETHERNET")]

    async with serving(mesh, Config):
        (record,) = await mesh.endpoints()
        assert {name: each.labels for name, each in record.network_service_labels.items()} == {
            "bread": {"crust": "dark"},
            "cake": {},
        }
        assert await mesh.services() == {"bread": "IP", "cake": "ETHERNET"}


@pytest.mark.parametrize(("variables", "left"), [({"NSM_UNREGISTER_ITSELF": "true"}, 0), ({}, 1)])
async def test_an_endpoint_that_stops_is_unregistered_if_it_is_to_be(mesh, variables, left):
    async with serving(mesh, NSM_SERVICE_NAMES="bread", **variables) as task:
        pass
    assert task.exception() is None
    assert len(await mesh.endpoints()) == left


async def test_a_service_of_somebody_else_is_refused_with_what_to_set_and_left_alone_when_that_is_set(mesh):
    """As where a topology file, or an operator, describes the service."""
    async with services_client(mesh.url, mesh.pool) as operator:
        matches = [Match(source_selector={"app": "web"})]
        await operator.register(RegistryCall(NetworkService(name="bread", payload="IP", matches=matches)))
        async with serving(mesh, NSM_SERVICE_NAMES="bread") as task:
            with pytest.raises(Refused) as raised:
                await task
        assert "'bread' was registered by spiffe://test.mesh/operator" in str(raised.value)
        assert "set NSM_REGISTER_SERVICE=false to provide the service as it is registered" in str(raised.value)
        async with serving(mesh, NSM_SERVICE_NAMES="bread", NSM_REGISTER_SERVICE="false"):
            assert [each.name for each in await mesh.endpoints()] == ["shop"]
        assert [each.matches for each in await mesh.found(SERVICES, NetworkService())] == [matches]


async def test_an_endpoint_whose_manager_is_not_there_waits_for_it_and_can_be_stopped(tmp_path):
    record = Record()
    config = load(EndpointConfig, {"NSM_SERVICE_NAMES": "bread", "NSM_CONNECT_TO": f"unix://{tmp_path}/no.sock"}).config
    identity, stopping = identity_of(AUTHORITY, "shop"), asyncio.Event()
    async with Pool(identity) as pool:
        task = asyncio.create_task(serve_endpoint(config, Runtime(identity, pool, stopping), [record]))
        await asyncio.sleep(0.3)
        assert not task.done()
        stopping.set()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"NSM_SERVICE_NAMES": "bread", "NSM_PAYLOAD": "BREAD"}, "NSM_PAYLOAD='BREAD': expected IP or ETHERNET"),
        ({"NSM_SERVICE_NAMES": ""}, "NSM_SERVICE_NAMES='': expected the services to provide, comma separated"),
    ],
)
def test_what_an_endpoint_cannot_be_is_told_by_its_variable(variables, told):
    with pytest.raises(ConfigError) as raised:
        load(EndpointConfig, variables)
    assert raised.value.faults == [told]
