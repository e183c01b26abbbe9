"""Which endpoint and which forwarder a request goes to, as in upstream's mesh."""

import asyncio
import time

import pytest

from nsm.apis.registry import Match, Metadata, NetworkService, NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Begin, Chain, Exhausted, NotFound, RegistryCall, RegistryChain, Unavailable
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.testing import Record, call
from tests.chains.elements.records import SERVICE, nse, registry_of
from tests.chains.elements.selection import Answers, Target, route, selecting, service, used


async def test_a_refresh_takes_no_turn_of_the_endpoints():
    """New connections of a service with two endpoints alternate, also if each is refreshed at once."""
    endpoints = [
        NetworkServiceEndpoint(name=name, network_service_names=["svc"], url=f"tcp://{name}:1") for name in "ab"
    ]
    end = Target()
    services = registry_of(NetworkService(name="svc", payload="IP"))
    chain = Chain([Begin(), Discover(services, registry_of(*endpoints)), RoundRobin(), end])
    for number in range(4):
        connection = await chain.request(call(f"c{number}", service="svc"))
        await chain.request(
            call(f"c{number}", service="svc", network_service_endpoint_name=connection.network_service_endpoint_name)
        )
    assert end.targets == [f"tcp://{name}:1" for name in "aabbaabb"]


async def test_an_endpoint_that_is_asked_for_by_name_gets_the_service_s_payload():
    """Else no mechanism carries the wire to another node, and one inside the node does without ARP."""
    services = registry_of(NetworkService(name="svc", payload="ETHERNET"))
    endpoints = registry_of(NetworkServiceEndpoint(name="a", network_service_names=["svc"], url="tcp://a:1"))
    chain = Chain([Begin(), Discover(services, endpoints)])
    for asked in ("", "a"):
        connection = await chain.request(call(f"c{asked}", service="svc", network_service_endpoint_name=asked))
        assert connection.payload == "ETHERNET"


async def test_a_connection_that_names_its_endpoint_gets_that_one_and_its_error():
    probe = Record()
    chain = Chain([Begin(), Discover(registry_of(SERVICE), registry_of(nse("a"), nse("b"))), RoundRobin(), probe])
    await chain.request(call(service="svc", network_service_endpoint_name="b"))
    assert probe.last.target == "tcp://b:1"
    with pytest.raises(NotFound, match="endpoint 'z' is not found"):
        await chain.request(call("d", service="svc", network_service_endpoint_name="z"))


async def test_what_is_missing_is_said_plainly():
    expired = nse("old")
    expired.expiration_time = Timestamp.from_seconds(time.time() - 1)
    only_v2 = NetworkService(name="v2", matches=[Match(source_selector={"v": "2"})])
    services = registry_of(SERVICE, NetworkService(name="empty"), only_v2)
    chain = Chain([Begin(), Discover(services, registry_of(expired, nse("x", "v2"))), RoundRobin()])
    with pytest.raises(NotFound, match="network service 'nope' is not found"):
        await chain.request(call(service="nope"))
    with pytest.raises(NotFound, match="'svc' with payload ETHERNET is not found"):
        await chain.request(call(service="svc", payload="ETHERNET"))
    with pytest.raises(NotFound, match="no endpoint of 'svc' is registered"):
        await chain.request(call(service="svc"))
    with pytest.raises(NotFound, match=r"no endpoint of 'v2' matches labels \{'v': '1'\}; 1 are registered"):
        await chain.request(call(service="v2", labels={"v": "1"}))


async def test_an_endpoint_that_is_gone_does_not_keep_a_connection_from_being_closed():
    probe, endpoints = Record(), registry_of(nse("a"))
    chain = Chain([Begin(), Discover(registry_of(SERVICE), endpoints), RoundRobin(), probe])
    await chain.request(call(service="svc"))
    endpoints.elements[0].records.pop("a")
    await chain.close(call())
    assert len(probe.closes) == 1


async def test_a_close_of_a_connection_that_came_to_no_endpoint_asks_the_registry_nothing():
    """A forwarder whose clients had given up asked for an endpoint without a name: for all of the mesh."""
    probe, asked = Record(), Record()
    chain = Chain([Begin(), Discover(registry_of(SERVICE), RegistryChain([asked])), RoundRobin(), probe])
    await chain.close(call(service="svc"))
    assert (len(probe.closes), asked.queries) == (1, [])


async def test_a_hundred_closes_at_an_endpoint_that_is_gone_look_for_it_once():
    """Each of them asked the manager, and that the registry, while the clients waited for another endpoint."""
    probe, asked, memory = Record(), Record(), registry_of()
    endpoints = RegistryChain([asked, memory.elements[0]])
    chain = Chain([Begin(), Discover(registry_of(SERVICE), endpoints), RoundRobin(), probe])
    for number in range(100):
        await chain.close(call(f"c{number}", service="svc", network_service_endpoint_name="a"))
    assert (len(probe.closes), len(asked.queries)) == (100, 1)
    await asyncio.sleep(2)
    await chain.close(call("later", service="svc", network_service_endpoint_name="a"))
    assert len(asked.queries) == 2


async def test_registry_calls_of_discovery_carry_the_deadline():
    seen = []

    class Notes:
        async def find(self, call):
            seen.append(call.deadline)
            yield []

    asked = call(service="svc")
    asked.deadline = 42.0
    with pytest.raises(NotFound):
        await Chain([Begin(), Discover(Notes(), Notes())]).request(asked)
    assert seen == [42.0, 42.0]
    assert RegistryCall(SERVICE).remaining() is None


def told(*matches):
    return service(*matches), nse("blue", color="blue"), nse("red", color="red", node="n1")


@pytest.mark.parametrize(
    ("matches", "labels", "names"),
    [
        ([Match(source_selector={"app": "web"}, routes=[route(color="red")])], {"app": "web"}, ["red"]),
        ([Match(routes=[route(color="{{.wanted}}")])], {"wanted": "blue"}, ["blue"]),
        ([Match(routes=[route(node="{{ index . `nodeName` }}")])], {"nodeName": "n1"}, ["red"]),
        (
            [Match(fallthrough=True, routes=[route(color="green")]), Match(routes=[route(color="blue")])],
            {},
            ["blue"],
        ),
        ([Match(metadata=Metadata(labels={"gpu": "true"}))], {}, ["blue", "red"]),
    ],
    ids=["source selector", "template", "template of the node", "fallthrough", "metadata"],
)
async def test_labels_select(matches, labels, names):
    chain, _ = selecting(*told(*matches))
    assert sorted(set(await used(chain, 4, labels=labels))) == names


@pytest.mark.parametrize(
    "matches",
    [
        [Match(source_selector={"app": "web"}, routes=[route(color="red")])],
        [Match(routes=[route(color="green")]), Match(routes=[route(color="blue")])],
        [Match(fallthrough=True, routes=[route(color="green")])],
        [Match(routes=[route(color="{{.wanted}}")])],
    ],
    ids=["source selector", "no fallthrough", "fallthrough to nothing", "template without value"],
)
async def test_labels_that_select_nothing_are_told(matches):
    chain, _ = selecting(*told(*matches))
    with pytest.raises(NotFound, match=r"no endpoint of 'svc' matches labels \{\}; 2 are registered"):
        await used(chain, 1)


NEAR = Match(routes=[route(near="true")], fallthrough=True)


async def test_a_match_with_fallthrough_whose_endpoints_cannot_be_reached_does_not_decide():
    """A client goes on to another node at once when the endpoint on its own one was killed, and is still registered."""
    behaviour = Answers(near=Unavailable("cannot reach near"), far=0, full=Exhausted("no addresses"))
    near, far = nse("near", near="true"), nse("far")
    chain, _ = selecting(service(NEAR, Match(routes=[route()])), near, far, probe=behaviour)
    assert await used(chain, 2) == ["far", "far"]
    assert [name for name, _ in behaviour.asked] == ["near", "far"] * 2
    assert behaviour.undone == ["near", "near"]
    behaviour.behaviour["far"] = Unavailable("cannot reach far")
    with pytest.raises(Unavailable, match="cannot reach far"):
        await used(chain, 1, first=2)


async def test_a_match_with_fallthrough_whose_endpoint_refuses_decides():
    behaviour = Answers(near=Exhausted("no addresses"), far=0)
    chain, _ = selecting(service(NEAR, Match(routes=[route()])), nse("near", near="true"), nse("far"), probe=behaviour)
    with pytest.raises(Exhausted):
        await used(chain, 1)
    assert [name for name, _ in behaviour.asked] == ["near"]
