"""The elements of connections, each in a chain with a begin and probes around it; time is virtual."""

import asyncio
import time

import pytest

from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorScopeSelector,
    Path,
    PathSegment,
    State,
)
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import (
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
)
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import (
    TRANSPORT,
    Begin,
    Call,
    Chain,
    Element,
    Exhausted,
    InvalidRequest,
    NotFound,
    RegistryCall,
    Unavailable,
    Unsupported,
)
from nsm.chains.elements.client_info import ClientInfo
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.discover_forwarder import DiscoverForwarder
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.elements.kernel import KernelClient, KernelServer, OfferKernel
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.monitor import DOWNSTREAM, Monitor
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.refresh import Refresh, refresh_after
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.elements.timeout import Timeout
from nsm.chains.elements.trim_path import TrimPath
from nsm.chains.model.interface_name import generate
from nsm.chains.testing import Fail, Record, call
from nsm.chains.transport import Monitors
from tests.chains.elements.records import SERVICE, nse, registry_of

EXPIRY = 600


def path(*names, index=0, lifetime=EXPIRY):
    expires = Timestamp.from_seconds(time.time() + lifetime)
    segments = [PathSegment(name=name, id=f"id-{name}", token="t", expires=codec.clone(expires)) for name in names]
    return Path(index=index, path_segments=segments)


# --- timeout


async def test_a_connection_that_is_not_refreshed_is_closed_when_the_caller_s_token_expires():
    probe = Record()
    async with Chain([Begin(), Timeout(), probe]) as chain:
        await chain.request(call(path=path("client", "server", index=1, lifetime=60)))
        await asyncio.sleep(50)
        await chain.request(call(path=path("client", "server", index=1, lifetime=60)))
        await asyncio.sleep(55)
        assert probe.closes == []
        await asyncio.sleep(10)
        assert len(probe.closes) == 1
        await asyncio.sleep(1000)
        assert len(probe.closes) == 1


async def test_a_caller_that_does_not_say_when_its_token_expires_is_refused_before_anything_is_done():
    probe = Record()
    chain = Chain([Begin(), Timeout(), probe])
    for bad in (path("server"), Path(index=1, path_segments=[PathSegment(name="a"), PathSegment(name="b")]), None):
        with pytest.raises(InvalidRequest):
            await chain.request(call(path=bad))
    assert probe.requests == []


# --- refresh


async def test_a_client_refreshes_at_a_third_of_the_time_and_goes_on_when_that_fails():
    probe, fail = Record(), Fail()

    class Renews(Element):
        async def request(self, call, rest):
            connection = await rest.request(call)
            connection.path = path("client", lifetime=90)
            return connection

    async with Chain([Begin(), Refresh(), Renews(), probe, fail]) as chain:
        await chain.request(call())
        await asyncio.sleep(29)
        assert len(probe.requests) == 1
        await asyncio.sleep(2)
        assert len(probe.requests) == 2
        fail.errors = [Unavailable("gone"), Unavailable("gone")]
        await asyncio.sleep(32)  # one refresh, two more tries after 0.2 and 0.4 seconds
        assert len(probe.requests) == 5
        await chain.close(call())
        await asyncio.sleep(1000)
        assert len(probe.requests) == 5


def test_the_further_a_component_is_from_the_client_the_later_it_refreshes():
    now = time.time()
    assert refresh_after(Connection(path=path("a", lifetime=90)), now) == pytest.approx(30, abs=0.1)
    assert refresh_after(Connection(path=path("a", "b", "c", "d", lifetime=100)), now) == pytest.approx(20, abs=0.1)
    assert refresh_after(Connection(path=path("a", "b", "c", "d", index=2, lifetime=100)), now) == pytest.approx(
        30, abs=0.1
    )
    assert refresh_after(Connection(path=path("a", lifetime=-5)), now) == 0
    assert refresh_after(Connection(), now) == float("inf")


# --- path, labels, mechanisms


async def test_an_endpoint_cuts_what_is_left_of_a_longer_way():
    connection = await Chain([TrimPath()]).request(call(path=path("a", "b", "old", index=1)))
    assert [s.name for s in connection.path.path_segments] == ["a", "b"]

    class End:
        async def request(self, call):
            return call.connection

        async def close(self, call): ...

    passed_on = await Chain([Begin(), TrimPath(), Connect(End())]).request(call(path=path("a", "b", "next", index=1)))
    assert len(passed_on.path.path_segments) == 3


async def test_where_a_client_runs_becomes_labels_unless_it_says_otherwise():
    chain = Chain([ClientInfo({"nodeName": "n", "podName": "", "clusterName": "c"})])
    assert (await chain.request(call(labels={"clusterName": "mine"}))).labels == {
        "nodeName": "n",
        "clusterName": "mine",
    }


async def test_the_first_preference_that_works_is_chosen_and_kept():
    """What a preference that failed had done is undone; without one that works, the first error counts."""
    undone = []

    class Fails(Element):
        async def request(self, call, rest):
            call.undo.add(lambda: undone.append(call.connection.mechanism.type))
            raise Exhausted("no VF")

    probe = Record()
    chain = Chain([Begin(), Mechanisms({"VFIO": [Fails()], "KERNEL": [probe]})])
    wanted = [Mechanism(type="MEMIF"), Mechanism(type="VFIO"), Mechanism(type="KERNEL")]
    assert (await chain.request(call(preferences=wanted))).mechanism.type == "KERNEL"
    assert undone == ["VFIO"]
    await chain.close(call())
    assert len(probe.closes) == 1
    with pytest.raises(Exhausted, match="no VF"):
        await chain.request(call(preferences=wanted[:2]))
    with pytest.raises(Unsupported, match=r"asked for MEMIF; here there is VFIO, KERNEL"):
        await chain.request(call(preferences=wanted[:1]))
    with pytest.raises(Unsupported, match="asked for MEMIF"):
        await chain.request(call(mechanism=Mechanism(type="MEMIF")))
    with pytest.raises(Unsupported, match="asked for none"):
        await chain.request(call())


async def test_kernel_interfaces_get_a_namespace_and_a_name():
    client = Record()
    await Chain([KernelClient("file:///ns/a"), client]).request(call(service="my-long-service"))
    (preference,) = client.requests[0].mechanism_preferences
    assert preference.parameters["inodeURL"] == "file:///ns/a"
    assert len(preference.parameters["name"]) == 15
    assert preference.parameters["name"].startswith("my-long-se-")
    named = Mechanism(type="KERNEL", parameters={"name": "nsm-1"})
    connection = await Chain([KernelServer("file:///ns/b")]).request(call(mechanism=named))
    assert connection.mechanism.parameters == {"name": "nsm-1", "inodeURL": "file:///ns/b"}


async def test_a_client_knows_the_names_that_it_asked_for_until_their_wires_end():
    kernel = KernelClient("file:///ns/a")
    chain = Chain([Begin(), kernel, Record()])
    wanted = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    for _ in range(3):
        await chain.request(call(preferences=wanted))
    assert kernel.names == {"nsm-1"}
    await chain.close(call())
    assert not kernel.names


async def test_no_two_wires_of_an_endpoint_get_one_name_and_a_closed_ones_name_is_free_again(monkeypatch):
    letters = iter("aaaa" + "aaaabbbb" + "aaaa")
    monkeypatch.setattr("secrets.choice", lambda _alphabet: next(letters))
    chain = Chain([Begin(), KernelServer("file:///ns/b")])

    async def name_of(connection_id):
        asked = call(connection_id, service="ten-letter", mechanism=Mechanism(type="KERNEL"))
        return (await chain.request(asked)).mechanism.parameters["name"]

    assert [await name_of("a"), await name_of("b")] == ["ten-letter-aaaa", "ten-letter-bbbb"]
    assert await name_of("a") == "ten-letter-aaaa"  # asked anew by a forwarder that started again
    await chain.close(call("a"))
    assert await name_of("c") == "ten-letter-aaaa"


async def test_a_wire_keeps_its_name_when_a_forwarder_that_started_again_does_not_know_it():
    chain = Chain([Begin(), KernelServer("file:///ns/b")])
    asked = [call(service="s", mechanism=Mechanism(type="KERNEL")) for _ in range(2)]
    first, again = [(await chain.request(each)).mechanism.parameters["name"] for each in asked]
    assert first == again


def test_a_random_name_is_not_that_of_an_interface_which_exists(monkeypatch):
    letters = iter("aaaabbbb")
    monkeypatch.setattr("secrets.choice", lambda _alphabet: next(letters))
    names = {"ten-letter-aaaa": 7}

    def index_of(name):
        if name not in names:
            raise OSError
        return names[name]

    monkeypatch.setattr("socket.if_nametoindex", index_of)
    assert generate("ten-letter") == "ten-letter-bbbb"


async def test_a_forwarder_keeps_its_two_sides_apart_also_when_it_refreshes_and_closes():
    far_side, far = MechanismTranslation(), Record()

    class Chooses(Element):
        async def request(self, call, rest):
            if call.connection.mechanism is None:
                call.connection.mechanism = call.request.mechanism_preferences[0]
                call.connection.mechanism.parameters["side"] = "far"
            return await rest.request(call)

    chain = Chain([Begin(), far_side, OfferKernel(), far, Chooses()])
    near = Mechanism(type="KERNEL", parameters={"side": "near"})
    for _ in range(2):
        asked = call(mechanism=codec.clone(near), preferences=[Mechanism(type="MEMIF")])
        connection = await chain.request(asked)
        assert connection.mechanism == near
    assert [p.type for p in far.requests[0].mechanism_preferences] == ["KERNEL"]
    assert far.requests[0].connection.mechanism is None
    assert far.requests[1].connection.mechanism.parameters == {"side": "far"}
    assert far_side.far_side(far.last).parameters == {"side": "far"}
    await chain.close(call())
    assert far.closes[0].connection.mechanism.parameters == {"side": "far"}


@pytest.mark.parametrize(
    ("target", "left"), [("unix:///x", ["KERNEL"]), ("tcp://h:1", ["VXLAN"]), ("inode://4/5", ["KERNEL"])]
)
async def test_only_mechanisms_that_reach_the_peer_are_offered(target, left):
    probe = Record()
    asked = call(preferences=[Mechanism(cls="LOCAL", type="KERNEL"), Mechanism(cls="REMOTE", type="VXLAN")])
    asked.target = target
    await Chain([FilterMechanisms(), probe]).request(asked)
    assert [p.type for p in probe.requests[0].mechanism_preferences] == left


# --- connect


async def test_what_a_client_chain_made_is_closed_when_the_rest_of_the_server_fails():
    """The first time; a refresh that fails leaves the connection as it is."""
    client, after = Record(), Fail(Unavailable("no"), None, Unavailable("no"))
    chain = Chain([Begin(), Connect(Chain([client])), after])
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert len(client.closes) == 1
    await chain.request(call())
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert len(client.closes) == 1
    await chain.close(call())
    assert len(client.closes) == 2


async def test_a_close_closes_both_sides_whatever_happens():
    class Fails(Element):
        async def close(self, call, rest):
            raise Unavailable("gone")

    after = Record()
    chain = Chain([Begin(), Connect(Chain([Fails()])), after])
    await chain.request(call())
    with pytest.raises(Unavailable):
        await chain.close(call())
    assert len(after.closes) == 1


# --- discovery


async def test_candidates_are_used_in_turn_and_failing_ones_passed_over():
    probe, fail = Record(), Fail()
    endpoints = registry_of(nse("a"), nse("b"), nse("c"))
    chain = Chain([Begin(), Discover(registry_of(SERVICE), endpoints), RoundRobin(), probe, fail])
    for number in range(4):
        connection = await chain.request(call(f"c{number}", service="svc"))
        assert connection.payload == "IP"
    assert [r.connection.network_service_endpoint_name for r in probe.requests] == ["a", "b", "c", "a"]
    fail.errors = [Unavailable("b is down")]
    connection = await chain.request(call("c5", service="svc"))
    assert connection.network_service_endpoint_name == "c"
    fail.errors = [Unavailable("down")] * 3
    with pytest.raises(Unavailable, match=r"all candidates have failed: .*a: down.*; .*"):
        await chain.request(call("c6", service="svc"))


async def test_a_connection_that_names_its_endpoint_gets_that_one_and_its_error():
    probe = Record()
    chain = Chain([Begin(), Discover(registry_of(SERVICE), registry_of(nse("a"), nse("b"))), RoundRobin(), probe])
    await chain.request(call(service="svc", network_service_endpoint_name="b"))
    assert probe.last.target == "tcp://b:1"
    with pytest.raises(NotFound, match="endpoint 'z' is not found"):
        await chain.request(call("d", service="svc", network_service_endpoint_name="z"))


async def test_who_cannot_be_asked_is_told_by_name():
    """A manager reaches who is on its node by a descriptor: his URL says nothing to others."""
    probe, fail = Record(), Fail()
    chain = Chain([Begin(), Discover(registry_of(SERVICE), registry_of(nse("a"))), RoundRobin(), probe, fail])
    for number, named in enumerate(("", "a")):
        fail.errors = [Unavailable("cannot reach unix:///proc/1/fd/7: Connection refused", element="transport")]
        with pytest.raises(Unavailable, match=r"^a: cannot reach \S+: Connection refused \(transport\)$"):
            await chain.request(call(f"c{number}", service="svc", network_service_endpoint_name=named))
        fail.errors = [Unavailable("there is no power", element="power", hops=("a",))]
        with pytest.raises(Unavailable, match=r"^a: there is no power \(power\)$"):
            await chain.request(call(f"d{number}", service="svc", network_service_endpoint_name=named))


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


def forwarders(*records, fail=None):
    probe = Record()
    services = registry_of(
        SERVICE,
        NetworkService(name="gpu", matches=[Match(metadata=Metadata(labels={"gpu": "true"}))]),
        NetworkService(name="plain", matches=[Match()]),
    )
    element = DiscoverForwarder(services, registry_of(*records), forwarder_service="forwarder", own_url="tcp://me:1")
    return Chain([Begin(), element, probe, fail or Fail()]), probe


async def test_a_forwarder_of_this_node_is_used_and_kept():
    own = [nse(name, "forwarder", "tcp://me:1", p2p="true") for name in ("f1", "f2")]
    fail = Fail()
    chain, probe = forwarders(*own, nse("other", "forwarder", "tcp://them:1", p2p="true"), fail=fail)
    fail.errors = [Unavailable("f1 is down")]
    await chain.request(call(service="svc"))
    await chain.request(call(service="svc"))
    assert len(probe.requests) == 3
    fail.errors = [Unavailable("down"), Unavailable("down")]
    with pytest.raises(Unavailable, match="all forwarders have failed: f1: .*; f2: "):
        await chain.request(call("d", service="svc"))
    await chain.close(call())
    assert len(probe.closes) == 1


async def test_the_forwarder_of_the_path_comes_first_and_labels_select():
    plain, gpu = (
        nse("f1", "forwarder", "tcp://me:1", p2p="true"),
        nse("f2", "forwarder", "tcp://me:1", gpu="true", p2p="true"),
    )
    chain, probe = forwarders(plain, gpu)
    seen = []

    class Target(Element):
        async def request(self, call, rest):
            seen.append(call.target)
            return await rest.request(call)

    await chain.request(call("a", service="gpu"))
    assert len(probe.requests) == 1
    chain, probe = forwarders(
        nse("f1", "forwarder", "unix:///tcp://me:1/f1", p2p="true"),
        nse("f2", "forwarder", "unix:///tcp://me:1/f2", p2p="true"),
    )
    await chain.request(call("b", service="svc", path=path("client", "nsmgr", "f2", index=1)))
    assert probe.last.target.endswith("f2")
    chain, _ = forwarders(nse("f1", "forwarder", "tcp://me:1"))
    with pytest.raises(NotFound, match="no forwarder of this node fits network service 'plain'"):
        await chain.request(call("c", service="plain"))


async def test_a_forwarder_that_went_away_is_named_until_the_client_reselects():
    fail = Fail()
    own = [nse(name, "forwarder", "tcp://me:1") for name in ("f1", "f2")]
    chain, probe = forwarders(*own, fail=fail)
    await chain.request(call(service="svc"))
    endpoints = chain.elements[1]._endpoints.elements[0].records
    endpoints.pop("f1")
    await chain.request(call(service="svc"))  # it is there, and nobody is asked whether it is
    fail.errors = [Unavailable("cannot reach it", element=TRANSPORT)]
    with pytest.raises(NotFound, match="forwarder 'f1' is not available"):
        await chain.request(call(service="svc"))
    await chain.request(call(service="svc", state=State.RESELECT_REQUESTED))
    assert len(probe.closes) == 1


async def test_while_the_only_forwarder_of_a_node_is_away_there_is_nothing_to_choose_anew():
    """Clients ask again until it is back, and their wires are as they were."""
    fail = Fail()
    chain, _ = forwarders(nse("f1", "forwarder", "tcp://me:1"), fail=fail)
    await chain.request(call(service="svc"))
    chain.elements[1]._endpoints.elements[0].records.pop("f1")
    fail.errors = [Unavailable("cannot reach it", element=TRANSPORT)]
    with pytest.raises(Unavailable, match="forwarder 'f1' is not available, and this node has no other"):
        await chain.request(call(service="svc"))


# --- addresses


async def test_addresses_come_back_when_a_request_fails_and_are_recovered_by_a_client_that_has_them():
    fail = Fail(Unavailable("no"))
    chain = Chain([Begin(), Point2PointIpam(["10.0.0.0/31"]), fail])
    with pytest.raises(Unavailable):
        await chain.request(call("a"))
    connection = await chain.request(call("b"))
    assert connection.context.ip_context.src_ip_addrs == ["10.0.0.1/32"]
    with pytest.raises(Exhausted, match=r"no two addresses are left in 10\.0\.0\.0/31"):
        await chain.request(call("c"))
    restarted = Chain([Begin(), Point2PointIpam(["10.0.0.0/24"])])
    again = await restarted.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
    assert again.context.ip_context == connection.context.ip_context
    other = await restarted.request(call("other"))
    assert other.context.ip_context.src_ip_addrs == ["10.0.0.3/32"]


async def test_an_address_is_given_back_once_and_never_to_two():
    chain = Chain([Begin(), Point2PointIpam(["10.0.0.0/29"])])
    await chain.request(call("a"))
    await asyncio.gather(chain.close(call("a")), chain.request(call("b")), chain.request(call("c")))
    assert len(chain.elements[0]) == 2
    taken = [
        ip
        for store in chain.elements[0].stores()
        for ip in (store.get(chain.elements[1]._lease).src, store.get(chain.elements[1]._lease).dst)
    ]
    assert len(set(taken)) == 4


def test_a_malformed_prefix_is_named():
    with pytest.raises(InvalidRequest, match="'10.0.0.0/99' is not a prefix"):
        Point2PointIpam(["10.0.0.0/99"])


# --- monitor


async def test_a_monitor_tells_of_a_connection_that_was_to_be_reselected_that_it_is_up():
    """Also if this component had not heard of it before."""
    monitor = Monitor()
    await Chain([Begin(), monitor]).request(call("a", state=State.RESELECT_REQUESTED))
    async for event in monitor.monitor(MonitorScopeSelector()):
        assert [connection.state for connection in event.connections.values()] == [State.UP]
        break


async def test_a_monitor_gets_the_present_state_then_what_changes():
    monitor = Monitor()
    chain = Chain([Begin(), monitor])
    await chain.request(call("a", service="one", path=path("client", "server", index=1)))
    heard = []

    async def listen(selector):
        async for event in monitor.monitor(selector):
            heard.append((event.type, sorted(event.connections)))

    listening = [
        asyncio.ensure_future(listen(MonitorScopeSelector())),
        asyncio.ensure_future(listen(MonitorScopeSelector(network_services=["nothing"]))),
    ]
    await asyncio.sleep(1)
    assert heard == [
        (ConnectionEventType.INITIAL_STATE_TRANSFER, ["a"]),
        (ConnectionEventType.INITIAL_STATE_TRANSFER, []),
    ]
    await chain.request(call("b", path=path("client", "server", index=1)))
    await asyncio.sleep(1)
    await chain.close(call("a"))
    await asyncio.sleep(1)
    assert heard[2:] == [(ConnectionEventType.UPDATE, ["b"]), (ConnectionEventType.DELETE, ["a"])]
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    assert monitor._listeners == set()


async def test_a_slow_listener_gets_the_latest_state_and_holds_nobody_up():
    monitor = Monitor()
    chain = Chain([Begin(), monitor])
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    for number in range(1000):
        await chain.request(call("a", payload=str(number)))
    event = await anext(events)
    assert event.connections["a"].payload == "999"
    await events.aclose()


class Downstream:
    """The monitor of the component that connections went on to."""

    def __init__(self):
        self.queue, self.opened = asyncio.Queue(), []

    async def __call__(self, target, selector):
        self.opened.append((target, selector.path_segments[0].name))
        while (event := await self.queue.get()) is not None:
            yield event
        raise Unavailable("the stream broke")


class GoesOn(Element):
    async def request(self, call, rest):
        call.live.put(DOWNSTREAM, "tcp://next:1")
        return await rest.request(call)


async def test_events_from_further_on_are_passed_on_as_our_own():
    """One stream serves all connections that went there; when it breaks they are down."""
    downstream = Downstream()
    monitor = Monitor(Monitors(downstream))
    chain = Chain([Begin(), monitor, GoesOn()])

    def our_path(own_id, *behind, index=1):
        ours = path("client", own_id, *behind, index=index)
        ours.path_segments[1].name = "me"
        return ours

    for name in ("x", "y"):
        await chain.request(call(f"id-{name}", path=our_path(name)))
    await asyncio.sleep(1)
    assert downstream.opened == [("tcp://next:1", "me")]
    theirs = Connection(id="id-next", state=State.DOWN, path=our_path("x", "next", index=2))
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    await downstream.queue.put(ConnectionEvent(type=ConnectionEventType.UPDATE, connections={"id-next": theirs}))
    event = await anext(events)
    assert event.type == ConnectionEventType.UPDATE
    own = event.connections["id-x"]
    assert (own.id, own.path.index, own.state) == ("id-x", 1, State.DOWN)
    assert [s.name for s in own.path.path_segments] == ["client", "me", "next"]
    await downstream.queue.put(None)
    assert (await anext(events)).connections["id-y"].state == State.DOWN
    await chain.request(call("id-y", path=our_path("y")))
    await asyncio.sleep(1)
    assert len(downstream.opened) == 2
    await events.aclose()
    await chain.aclose()


async def test_a_refresh_that_fails_is_told_as_down():
    downstream, fail = Downstream(), Fail()
    monitor = Monitor(Monitors(downstream))
    chain = Chain([Begin(), monitor, GoesOn(), fail])
    await chain.request(call("a", path=path("client", "me", index=1)))
    fail.errors = [Unavailable("no")]
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    with pytest.raises(Unavailable):
        await chain.request(call("a", path=path("client", "me", index=1)))
    assert (await anext(events)).connections["a"].state == State.DOWN
    await events.aclose()
    await chain.aclose()


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


async def test_a_second_candidate_gets_the_descriptor_too_and_the_caller_its_own_name_back(tmp_path):
    """What was translated for the first one is not taken for the caller's own."""
    from nsm.chains.elements.descriptors import SendDescriptors

    (tmp_path / "ns").touch()
    sent = []

    class Peer(Element):
        async def request(self, call, rest):
            sent.append((call.connection.mechanism.parameters["inodeURL"].split(":")[0], list(call.outgoing)))
            if len(sent) == 1:
                raise Unavailable("gone")
            return call.connection

    chain = Chain([Begin(), RoundRobin(), SendDescriptors(), Peer()])
    asked = call("c", mechanism=Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{tmp_path}/ns"}))
    asked.candidates = [NetworkServiceEndpoint(name=name, url=f"tcp://{name}:1") for name in ("a", "b")]
    connection = await chain.request(asked)
    assert connection.mechanism.parameters["inodeURL"] == f"file://{tmp_path}/ns"
    assert sent == [("inode", [f"{tmp_path}/ns"])] * 2
