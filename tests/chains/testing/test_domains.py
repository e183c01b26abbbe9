"""Domains in memory: connections and registrations across two and three of them."""

import asyncio

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed import client, monitors
from nsm.chains.core import (
    ENDPOINTS,
    SERVICES,
    InvalidRequest,
    MeshError,
    NotFound,
    Refused,
    RegistryCall,
    RegistryChain,
    Unavailable,
)
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.policy import Admitted, vouched_chain
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.resolve_domain import REGISTRY
from nsm.chains.testing import Check, Fail, Mesh, Record, call
from nsm.chains.testing.domains import Domains
from nsm.chains.transport import RemoteNetworkService, RemoteRegistry

PATH = ["client", "nsmgr", "forwarder", "nsmgr-proxy-one", "nsmgr-proxy-two", "nsmgr", "forwarder", "shop"]


def elements(*own, prefix="10.8.0.0/24"):
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


def names_of(connection):
    return [each.name for each in connection.path.path_segments]


def finder(domain, kind, who="client"):
    chain = RegistryChain([RegistryClientUrl(domain.url("nsmgr"))], RemoteRegistry(kind, domain.pool(who)))

    async def find(record):
        return [one.record async for batch in chain.find(RegistryCall(record)) for one in batch]

    return find


async def add_floating(domain, name, services, elements, at):
    """An endpoint of `domain` that is registered at another one only."""
    await domain.add_endpoint(f"{name}@{at}", elements, services=[f"{each}@{at}" for each in services])


async def test_a_client_gets_a_connection_to_a_service_of_another_domain_in_eight_segments():
    record = Record()
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(record), services=["shop"])
        client = one.add_client()
        connection = await client.request(call("c", "shop@two", timeout=5))
        assert names_of(connection) == PATH
        assert connection.network_service == "shop@two"
        assert connection.network_service_endpoint_name == "shop@two"
        await client.request(call("c", "shop@two", timeout=5))  # a refresh
        assert record.last.connection.network_service == record.last.connection.network_service_endpoint_name == "shop"
        await client.close(call("c"))
        assert one.connections() == two.connections() == {}
        assert len(record.closes) == 1


async def test_an_endpoint_sees_the_identity_of_a_client_of_another_domain():
    record = Record()
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(record), services=["shop"])
        await one.add_client().request(call("c", "shop@two", timeout=5))
        assert record.last.origin == "spiffe://one/client"


async def test_nobody_of_another_domain_may_vouch_for_a_client_of_ours():
    async with Domains("one", "two") as (_, two):
        path = ["spiffe://two/client", "spiffe://one/nsmgr", "spiffe://one/nsmgr-proxy", "spiffe://two/nsmgr-proxy"]
        assert vouched_chain(path, two.trust)[-1] == "spiffe://one/nsmgr"
        assert vouched_chain(["spiffe://one/client", *path[1:]], two.trust)[-1] == "spiffe://one/client"


async def test_find_gives_names_with_the_domain_and_the_own_proxy_s_url():
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(), services=["shop"], colour="red")
        (found,) = await finder(one, ENDPOINTS)(NetworkServiceEndpoint(network_service_names=["shop@two"]))
        assert (found.name, found.network_service_names, found.url) == (
            "shop@two",
            ["shop@two"],
            one.url("nsmgr-proxy"),
        )
        assert found.network_service_labels["shop@two"].labels == {"colour": "red"}
        assert [each.name for each in await finder(one, SERVICES)(NetworkService(name="shop@two"))] == ["shop@two"]
        assert await finder(one, SERVICES)(NetworkService(name="gym@two")) == []


async def test_the_cause_of_a_failure_in_another_domain_reaches_the_client_in_its_words():
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(Fail(Refused("closed today"), None)), services=["shop"])
        client = one.add_client()
        with pytest.raises(Refused) as raised:
            await client.request(call("c", "shop@two", timeout=5))
        assert str(raised.value) == (
            "nsmgr → forwarder → nsmgr-proxy → nsmgr-proxy → nsmgr → forwarder → shop: closed today (fail)"
        )
        assert one.connections() == two.connections() == {}


UNUSABLE = [
    ("gym@two", NotFound, "network service 'gym@two' is not found"),
    ("shop@nowhere", NotFound, "domain 'nowhere' has no record registry.nsm-system.nowhere"),
    ("shop@dead", Unavailable, "the registry of domain 'dead' cannot be reached at tcp://10.9.9.9:5002"),
    ("shop@two@three", InvalidRequest, "'shop@two@three' has more than one @; expected service@domain"),
    ("shop@-", InvalidRequest, "'shop@-' names no domain"),
    ("shop@one", InvalidRequest, "domain 'one' is this one"),
]


async def test_a_domain_that_cannot_be_used_is_named_in_the_error():
    domains = Domains("one", "two")
    async with domains as (one, two):
        domains.names.urls[REGISTRY, "dead"] = ["tcp://10.9.9.9:5002"]
        await two.add_endpoint("shop", elements(), services=["shop"])
        await one.add_endpoint("shop", elements(), services=["shop"])
        client = one.add_client()
        for service, kind, words in UNUSABLE:
            with pytest.raises(MeshError) as raised:
                await client.request(call("c", service, timeout=5))
            assert words in str(raised.value)
            assert isinstance(raised.value, kind)
            assert one.connections() == two.connections() == {}


async def test_a_registry_without_a_proxy_says_that_it_knows_no_other_domain():
    async with Mesh() as mesh:
        with pytest.raises(NotFound, match="this registry has no proxy .NSM_PROXY_REGISTRY_URL."):
            await mesh.add_client().request(call("c", "shop@two", timeout=5))


async def test_a_trust_domain_that_is_not_federated_is_named_in_the_error():
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(), services=["shop"])
        one.identity("registry-proxy").update(
            one.identity("registry-proxy").svid, {"one": one.identity("registry-proxy").bundles["one"]}
        )
        with pytest.raises(Refused, match="is of trust domain 'two', which is not federated with ours"):
            await one.add_client().request(call("c", "shop@two", timeout=5))


async def test_only_services_that_are_admitted_can_be_used_from_another_domain():
    domains = Domains("one", "two")
    domains.all[1].admitted = Admitted.parse("one=shop")
    async with domains as (one, two):
        for name in ("shop", "bank"):
            await two.add_endpoint(name, elements(), services=[name])
        client = one.add_client()
        await client.request(call("c", "shop@two", timeout=5))
        with pytest.raises(Refused, match="may not use 'bank' of this domain; NSM_ADMITTED_DOMAINS controls who may"):
            await client.request(call("d", "bank@two", timeout=5))
        assert await finder(one, ENDPOINTS)(NetworkServiceEndpoint(name="bank@two")) == []


async def test_several_registries_of_a_domain_are_tried_in_turn():
    domains = Domains("one", "two")
    async with domains as (one, two):
        domains.names.urls[REGISTRY, "two"].insert(0, "tcp://10.9.9.9:5002")
        await two.add_endpoint("shop", elements(), services=["shop"])
        await one.add_client().request(call("c", "shop@two", timeout=5))


async def test_each_end_of_a_tunnel_between_nodes_behind_nat_is_the_outside_address_of_the_other():
    async with Domains("one", "two") as (one, two):
        one.addresses["10.1.0.2"], two.addresses["10.2.0.2"] = "203.0.113.1", "203.0.113.2"
        await two.add_endpoint("shop", elements(), services=["shop"], payload="ETHERNET")
        client = one.add_client()
        for _ in range(2):
            await client.request(call("c", "shop@two", timeout=5))
            (near,), (far,) = (domain.dataplanes["forwarder"].wires.values() for domain in (one, two))
            (_, to_far), (to_near, _) = near.wire.sides, far.wire.sides
            assert (str(to_far.local), str(to_far.remote)) == ("10.1.0.2", "203.0.113.2")
            assert (str(to_near.local), str(to_near.remote)) == ("10.2.0.2", "203.0.113.1")


async def test_a_floating_endpoint_is_found_in_a_third_domain_and_reached_in_its_own():
    record = Record()
    async with Domains("one", "two", floating=["sky"]) as (one, two, _):
        await add_floating(two, "shop", ["shop"], elements(record), "sky")
        client = one.add_client()
        connection = await client.request(call("c", "shop@sky", timeout=5))
        assert names_of(connection) == [*PATH[:-1], "shop@sky"]
        assert record.last.connection.network_service == "shop@sky"
        assert record.last.origin == "spiffe://one/client"
        await client.close(call("c"))
        assert one.connections() == two.connections() == {}


async def test_a_floating_endpoint_is_reached_from_its_own_domain_too():
    async with Domains("one", floating=["sky"]) as (one, _):
        await add_floating(one, "shop", ["shop"], elements(), "sky")
        connection = await one.add_client().request(call("c", "shop@sky", timeout=5))
        assert names_of(connection) == ["client", "nsmgr", "forwarder", "shop@sky"]


async def test_a_floating_endpoint_is_registered_again_when_what_it_passed_is_restarted():
    async with Domains("one", "two", floating=["sky"]) as (one, two, sky):
        await add_floating(two, "shop", ["shop"], elements(), "sky")
        client = one.add_client()
        for domain, who in ((two, "nsmgr-proxy"), (two, "registry-proxy"), (two, "registry"), (sky, "registry")):
            await asyncio.sleep(1)  # its registration is watched now
            await domain.remove(who)
            await domain.start(who)
            await asyncio.sleep(5)
            await client.request(call(f"{domain.name} {who}", "shop@sky", timeout=5))


@pytest.mark.parametrize("where", [0, 1])
async def test_connections_across_domains_go_on_after_each_component_was_restarted(where):
    async with Domains("one", "two") as domains:
        one, two = domains
        await two.add_endpoint("shop", elements(), services=["shop"])
        client = one.add_client(refresh=True)
        first = await client.request(call("c", "shop@two", timeout=5))
        for who in ("nsmgr-proxy", "registry-proxy", "registry", "nsmgr", "forwarder"):
            await domains[where].remove(who)
            await domains[where].start(who)
            await asyncio.sleep(10)
            again = await client.request(call("c", "shop@two", timeout=5))
            assert again.context.ip_context == first.context.ip_context
            await client.request(call(who, "shop@two", timeout=5))


async def test_a_client_of_another_domain_moves_to_the_next_endpoint_when_its_own_dies():
    async with Domains("one", "two") as (one, two):
        for number, name in enumerate(("first", "second")):
            await two.add_endpoint(name, elements(prefix=f"10.{number}.0.0/24"), services=["shop"])
        client = one.add_client(heal=Heal(monitors(one.pool("client"))))
        connection = await client.request(call("c", "shop@two", timeout=5))
        name = connection.network_service_endpoint_name.partition("@")[0]
        await two.remove(name)
        await asyncio.sleep(20)
        moved = await client.request(call("c", "shop@two", timeout=5))
        assert moved.network_service_endpoint_name not in (connection.network_service_endpoint_name, "")


async def test_a_path_may_lead_over_a_third_domain_by_an_endpoint_that_is_a_client_itself():
    record = Record()
    async with Domains("one", "two", "three") as (one, two, three):
        await three.add_endpoint("store", elements(record), services=["store"])
        asks = Check(lambda call: name(call.connection, "store@three"), after=lambda answer: name(answer, "middle"))
        own = [MechanismTranslation(), asks, KernelClient(), SendDescriptors()]
        onward = client("middle", own, RemoteNetworkService(two.pool("middle")), url=two.url("nsmgr"))
        passes = [Mechanisms({"KERNEL": [KernelServer()]}), Connect(onward), ReturnDescriptors()]
        await two.add_endpoint("middle", passes, services=["middle"])
        asked = one.add_client()
        connection = await asked.request(call("c", "middle@two", timeout=5))
        assert names_of(connection) == [
            *("client", "nsmgr", "forwarder", "nsmgr-proxy-one"),
            *("nsmgr-proxy-two", "nsmgr", "forwarder", "middle", "nsmgr", "forwarder", "nsmgr-proxy-two"),
            *("nsmgr-proxy-three", "nsmgr", "forwarder", "store"),
        ]
        assert record.last.origin == "spiffe://two/middle"
        await asked.close(call("c"))
        assert one.connections() == two.connections() == three.connections() == {}


def name(connection, service):
    connection.network_service, connection.network_service_endpoint_name = service, ""
