"""Which endpoint and which forwarder a request goes to, as in upstream's mesh."""

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import Match, Metadata, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import Begin, Call, Chain, Element, RegistryChain
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.discover_forwarder import DiscoverForwarder
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.registry.memory import Memory


class Target(Element):
    """Notes whom the call would go to."""

    def __init__(self):
        self.targets = []

    async def request(self, call, rest):
        self.targets.append(call.target)
        return await rest.request(call)


def registry_of(*records):
    memory = Memory()
    for record in records:
        memory.records.put(record)
    return RegistryChain([memory])


def call(connection_id, **fields):
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, network_service="svc", **fields)))


async def test_a_refresh_takes_no_turn_of_the_endpoints():
    """New connections of a service with two endpoints alternate, also if each is refreshed at once."""
    endpoints = [
        NetworkServiceEndpoint(name=name, network_service_names=["svc"], url=f"tcp://{name}:1") for name in "ab"
    ]
    end = Target()
    services = registry_of(NetworkService(name="svc", payload="IP"))
    chain = Chain([Begin(), Discover(services, registry_of(*endpoints)), RoundRobin(), end])
    for number in range(4):
        connection = await chain.request(call(f"c{number}"))
        await chain.request(call(f"c{number}", network_service_endpoint_name=connection.network_service_endpoint_name))
    assert end.targets == [f"tcp://{name}:1" for name in "aabbaabb"]


async def test_an_endpoint_that_is_asked_for_by_name_gets_the_service_s_payload():
    """Else no mechanism carries the wire to another node, and one inside the node does without ARP."""
    services = registry_of(NetworkService(name="svc", payload="ETHERNET"))
    endpoints = registry_of(NetworkServiceEndpoint(name="a", network_service_names=["svc"], url="tcp://a:1"))
    chain = Chain([Begin(), Discover(services, endpoints)])
    for asked in ("", "a"):
        connection = await chain.request(call(f"c{asked}", network_service_endpoint_name=asked))
        assert connection.payload == "ETHERNET"


async def test_metadata_without_labels_asks_for_a_point_to_point_forwarder():
    """On the wire, labels that are empty and labels that are missing are the same."""
    forwarders = [
        NetworkServiceEndpoint(
            name=name,
            network_service_names=["forwarder"],
            network_service_labels={"forwarder": NetworkServiceLabels(labels=labels)},
            url=f"tcp://me:1/{name}",
        )
        for name, labels in (("other", {"sriov": "true"}), ("own", {"p2p": "true"}))
    ]
    services = registry_of(NetworkService(name="svc", matches=[Match(metadata=Metadata())]))
    end = Target()
    element = DiscoverForwarder(services, registry_of(*forwarders), forwarder_service="forwarder", own_url="tcp://me:1")
    await Chain([Begin(), element, end]).request(call("a"))
    assert end.targets == ["tcp://me:1/own"]
