"""A registry in custom resources: replicas share it, people edit it, and an API server that is away ends nothing."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import RegistrySettings
from nsm.chains.core import Conflict, InvalidRequest, Refused, RegistryCall, TimedOut, Unavailable
from nsm.chains.identity import Authority
from nsm.chains.registry.stored import collector, writes
from nsm.chains.testing.identity import identity_of
from nsm.services.registry.custom_resources import custom_resource_registry
from tests.kube.stand_in import eventually, forbidden, stand_in
from tests.services.registry import nonsense

GROUP = "/apis/networkservicemesh.io/v1/namespaces"
ENDPOINTS, SERVICES = f"{GROUP}/nsm-system/networkserviceendpoints", f"{GROUP}/nsm-system/networkservices"
IDENTITY = identity_of(Authority.create("test.mesh"), "registry")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """What ends is deleted without the random delay."""
    monkeypatch.setattr(collector, "_SPREAD", 0.01)
    monkeypatch.setattr(collector, "_AGAIN", 0.05)


@pytest.fixture
async def server():
    async with stand_in() as server:
        yield server


@asynccontextmanager
async def replica(server, *, lifetime=60.0, policies=()):
    settings = RegistrySettings(policies=policies, lifetime=lifetime)
    registry = custom_resource_registry(
        IDENTITY, settings, namespace="nsm-system", kubeconfig=server.url, name="registry"
    )
    async with registry as chains:
        yield chains


@pytest.fixture
async def registry(server):
    async with replica(server) as registry:
        yield registry


@pytest.fixture
async def replicas(server):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server)) for _ in range(2)]


def nse(name="nse", *services, **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), **fields)


def call(record, **options):
    return RegistryCall(record, **options)


def within(seconds):
    return asyncio.get_running_loop().time() + seconds


async def find(chain, query=None):
    query = NetworkServiceEndpoint() if query is None else query
    return [found.record async for batch in chain.find(call(query)) for found in batch]


async def names(chain, query=None):
    return [record.name for record in await find(chain, query)]


async def found_soon(chain, query, expected):
    async with asyncio.timeout(5):
        while await names(chain, query) != expected:
            await asyncio.sleep(0.005)


# --- what is written and read


async def test_an_endpoint_is_written_in_upstreams_shape(server, registry):
    record = nse("nse-1", "svc", url="tcp://10.0.0.1:5001", path_ids=["spiffe://a/nse", "spiffe://a/nsmgr"])
    record.expiration_time = Timestamp(seconds=int(time.time()) + 30, nanos=5)
    record.initial_registration_time = Timestamp(seconds=1_700_000_000)
    answer = await registry.endpoints.register(call(record))
    assert answer == record
    written = server.at(f"{ENDPOINTS}/nse-1")
    assert (written["apiVersion"], written["kind"]) == ("networkservicemesh.io/v1", "NetworkServiceEndpoint")
    assert written["spec"] == {
        "name": "nse-1",
        "network_service_names": ["svc"],
        "url": "tcp://10.0.0.1:5001",
        "expiration_time": {"seconds": record.expiration_time.seconds, "nanos": 5},
        "initial_registration_time": {"seconds": 1_700_000_000},
        "path_ids": ["spiffe://a/nse", "spiffe://a/nsmgr"],
    }


async def test_what_upstream_wrote_is_found(server, registry):
    server.put(
        f"{GROUP}/elsewhere/networkservices/svc",
        spec={
            "payload": "ETHERNET",
            "matches": [
                {
                    "source_selector": {"app": "a"},
                    "routes": [{"destination_selector": {"via": "{{ .nodeName }}"}, "weight": 3}],
                    "fallthrough": True,
                },
                {"metadata": {"labels": {"any": "way"}}},
            ],
        },
    )
    async with asyncio.timeout(5):
        while not (services := await find(registry.services, NetworkService(name="svc"))):
            await asyncio.sleep(0.005)
    service = services[0]
    assert (service.payload, len(service.matches)) == ("ETHERNET", 2)
    route = service.matches[0].routes[0]
    assert (route.destination_selector, route.weight, service.matches[0].fallthrough) == (
        {"via": "{{ .nodeName }}"},
        3,
        True,
    )
    assert service.matches[1].metadata.labels == {"any": "way"}


async def test_fields_of_somebody_else_stay(server, registry):
    await registry.endpoints.register(call(nse()))
    held = server.at(f"{ENDPOINTS}/nse")
    server.put(f"{ENDPOINTS}/nse", spec={**held["spec"], "newer": {"field": 1}}, labels={"of": "a person"})
    await registry.endpoints.register(call(nse(url="tcp://moved:1")))
    held = server.at(f"{ENDPOINTS}/nse")
    assert (held["spec"]["newer"], held["spec"]["url"]) == ({"field": 1}, "tcp://moved:1")
    assert held["metadata"]["labels"] == {"of": "a person"}


async def test_a_name_that_kubernetes_does_not_allow_gets_a_valid_object(server, registry):
    await registry.endpoints.register(call(nse("Vpn_West@example")))
    (path,) = server.paths()
    assert path == f"{ENDPOINTS}/vpn-west-example-a841e4bcc0"
    assert await names(registry.endpoints) == ["Vpn_West@example"]
    await registry.endpoints.unregister(call(nse("Vpn_West@example")))
    assert server.paths() == []


async def test_a_record_without_a_name_is_refused(registry):
    with pytest.raises(InvalidRequest, match="NetworkServiceEndpoint has no name"):
        await registry.endpoints.register(call(nse("")))


# --- find


async def test_find_asks_nobody(server, registry):
    await registry.endpoints.register(call(nse("a", "one")))
    await registry.endpoints.register(call(nse("b", "two")))
    asked = len(server.requests)
    assert await names(registry.endpoints, nse("", "two")) == ["b"]
    assert await names(registry.endpoints) == ["a", "b"]
    assert len(server.requests) == asked


async def test_what_one_replica_registered_the_other_finds_and_a_watch_tells(replicas):
    one, other = replicas
    watch = other.endpoints.find(call(nse("", "svc"), watch=True))
    assert await anext(watch) == []
    await one.endpoints.register(call(nse("a")))
    (found,) = await anext(watch)
    assert (found.record.name, found.deleted) == ("a", False)
    await one.endpoints.unregister(call(nse("a")))
    (found,) = await anext(watch)
    assert (found.record.name, found.deleted) == ("a", True)
    await watch.aclose()


async def test_who_registered_finds_it_at_once_and_not_after_it_unregistered(registry):
    for number in range(20):
        await registry.endpoints.register(call(nse(f"n{number}")))
        assert f"n{number}" in await names(registry.endpoints)
        await registry.endpoints.unregister(call(nse(f"n{number}")))
        assert await names(registry.endpoints) == []


async def test_an_edited_service_is_seen_by_the_next_request(server, registry):
    await registry.services.register(call(NetworkService(name="svc")))
    held = server.at(f"{SERVICES}/svc")
    begin = time.monotonic()
    server.put(
        f"{SERVICES}/svc", spec={**held["spec"], "matches": [{"routes": [{"destination_selector": {"v": "2"}}]}]}
    )
    while not (await find(registry.services, NetworkService(name="svc")))[0].matches:
        await asyncio.sleep(0.005)
    assert time.monotonic() - begin < 1


async def test_of_two_objects_with_one_name_that_of_our_namespace_counts(server, registry):
    server.put(f"{GROUP}/a/networkserviceendpoints/nse", spec={"name": "nse", "url": "tcp://theirs:1"})
    await found_soon(registry.endpoints, None, ["nse"])
    await registry.endpoints.register(call(nse(url="tcp://ours:1")))
    assert [record.url for record in await find(registry.endpoints)] == ["tcp://ours:1"]
    await registry.endpoints.unregister(call(nse()))
    assert [record.url for record in await find(registry.endpoints)] == ["tcp://theirs:1"]


# --- several at once


async def test_replicas_that_register_one_name_at_once_agree(server, replicas):
    calls = [
        replicas[number % 2].endpoints.register(call(nse(url=f"tcp://host:{number}", path_ids=["spiffe://a/nse"])))
        for number in range(6)
    ]
    await asyncio.gather(*calls)
    written = server.at(f"{ENDPOINTS}/nse")["spec"]["url"]
    for registry in replicas:
        assert [record.url for record in await find(registry.endpoints)] == [written]


async def test_when_an_endpoint_came_stays_whichever_replica_it_comes_to(replicas):
    first = await replicas[0].endpoints.register(call(nse()))
    await found_soon(replicas[1].endpoints, None, ["nse"])
    again = await replicas[1].endpoints.register(call(nse()))
    assert again.initial_registration_time == first.initial_registration_time


OWNED = ("etc/nsm/opa/registry/client_allowed.rego",)


async def test_a_name_belongs_to_who_registered_it_at_any_replica_and_after_a_restart(server):
    async with replica(server, policies=OWNED) as one:
        await one.endpoints.register(call(nse(path_ids=["spiffe://a/owner"])))
    async with replica(server, policies=OWNED) as other:
        with pytest.raises(Refused, match="client_allowed: 'nse' was registered by spiffe://a/owner"):
            await other.endpoints.register(call(nse(path_ids=["spiffe://a/thief"])))
        with pytest.raises(Refused):
            await other.endpoints.unregister(call(nse(path_ids=["spiffe://a/thief"])))
        await other.endpoints.register(call(nse(path_ids=["spiffe://a/owner"])))
        await other.endpoints.unregister(call(nse(path_ids=["spiffe://a/owner"])))
        assert server.paths() == []


async def test_two_that_claim_a_free_name_at_once_do_not_both_get_it(server):
    async with replica(server, policies=OWNED) as one, replica(server, policies=OWNED) as other:
        results = await asyncio.gather(
            one.endpoints.register(call(nse(path_ids=["spiffe://a/one"]))),
            other.endpoints.register(call(nse(path_ids=["spiffe://a/other"]))),
            return_exceptions=True,
        )
    assert sorted(type(result).__name__ for result in results) == ["NetworkServiceEndpoint", "Refused"]


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
async def test_a_service_is_there_once_it_is_registered_although_another_replica_has_just_taken_it_out(server, payload):
    first = NetworkService(name="svc", path_ids=["spiffe://a/first"])
    async with replica(server, policies=OWNED) as one, replica(server, policies=OWNED) as other:
        await one.services.register(call(first))
        await one.endpoints.register(call(nse(path_ids=["spiffe://a/first"])))
        await found_soon(other.services, NetworkService(name="svc"), ["svc"])
        await found_soon(other.endpoints, None, ["nse"])
        server._watchers.clear()  # what happens now is not told yet
        await one.services.unregister(call(first))
        await other.services.register(call(NetworkService(name="svc", payload=payload, path_ids=["spiffe://a/next"])))
        assert server.at(f"{SERVICES}/svc")["spec"]["path_ids"] == ["spiffe://a/next"]


async def test_an_owner_takes_its_endpoint_out_at_a_replica_that_still_knows_the_last_owner(server):
    last, owner = nse(path_ids=["spiffe://a/last"]), nse(path_ids=["spiffe://a/owner"])
    async with replica(server, policies=OWNED) as one, replica(server, policies=OWNED) as other:
        await one.endpoints.register(call(last))
        await found_soon(other.endpoints, None, ["nse"])
        server._watchers.clear()  # what happens now is not told yet
        await one.endpoints.unregister(call(last))
        await one.endpoints.register(call(owner))
        await other.endpoints.unregister(call(owner))
        assert server.paths() == []


# --- services, and people


async def test_several_provide_a_service_and_one_object_tells_it(server):
    async with replica(server, policies=OWNED) as registry:
        await registry.services.register(call(NetworkService(name="svc", path_ids=["spiffe://a/one"])))
        version = server.at(f"{SERVICES}/svc")["metadata"]["resourceVersion"]
        await registry.services.register(call(NetworkService(name="svc", payload="IP", path_ids=["spiffe://a/two"])))
        assert server.at(f"{SERVICES}/svc")["metadata"]["resourceVersion"] == version


async def test_who_says_something_else_of_a_service_is_refused_while_somebody_provides_it(server):
    async with replica(server, policies=OWNED) as registry:
        await registry.services.register(call(NetworkService(name="svc", path_ids=["spiffe://a/one"])))
        await registry.endpoints.register(call(nse(path_ids=["spiffe://a/one"])))
        frames = NetworkService(name="svc", payload="ETHERNET", path_ids=["spiffe://a/two"])
        with pytest.raises(Refused, match="'svc' was registered by spiffe://a/one"):
            await registry.services.register(call(frames))
        await registry.endpoints.unregister(call(nse(path_ids=["spiffe://a/one"])))
        await registry.services.register(call(frames))
        assert server.at(f"{SERVICES}/svc")["spec"]["payload"] == "ETHERNET"


async def test_matches_that_a_person_added_survive_the_next_registration(server, registry):
    ours = NetworkService(name="svc", path_ids=["spiffe://a/one"])
    await registry.services.register(call(ours))
    held = server.at(f"{SERVICES}/svc")
    edited = {**held["spec"], "matches": [{"routes": [{"destination_selector": {"v": "2"}}]}]}
    server.put(f"{SERVICES}/svc", spec=edited)
    await registry.services.register(call(ours))
    assert server.at(f"{SERVICES}/svc")["spec"] == edited
    await eventually(lambda: registry.services.elements[-1].index.records.get("svc").matches)
    answer = await registry.services.register(call(ours))
    assert server.at(f"{SERVICES}/svc")["spec"] == edited
    assert answer.matches[0].routes[0].destination_selector == {"v": "2"}


async def test_a_service_that_a_person_applied_is_not_written_over_and_stays(server, registry):
    server.put(f"{SERVICES}/svc", spec={"payload": "IP", "matches": [{"fallthrough": True}]})
    await found_soon(registry.services, NetworkService(name="svc"), ["svc"])
    ours = NetworkService(name="svc", path_ids=["spiffe://a/one"])
    await registry.services.register(call(ours))
    await registry.services.unregister(call(ours))
    assert server.at(f"{SERVICES}/svc")["spec"] == {"payload": "IP", "matches": [{"fallthrough": True}]}
    with pytest.raises(Conflict, match="'svc' was applied by hand with payload IP and 1 matches"):
        await registry.services.register(call(NetworkService(name="svc", payload="ETHERNET")))
    with pytest.raises(Conflict, match="applied by hand"):
        await registry.services.register(call(NetworkService(name="svc", matches=[Match()])))


async def test_an_object_edited_into_nonsense_is_ignored_with_an_event_and_what_it_was_counts(server, registry):
    await registry.services.register(call(NetworkService(name="svc", path_ids=["spiffe://a/one"])))
    server.put(f"{SERVICES}/svc", spec={"name": "svc", "matches": "none"})
    server.put(f"{SERVICES}/never", spec=[1, 2])
    server.put(f"{ENDPOINTS}/odd", spec={"name": "odd", "expiration_time": {"seconds": "soon"}})
    events = "/api/v1/namespaces/nsm-system/events/"
    await eventually(lambda: sum(path.startswith(events) for path in server.paths()) == 3)
    told = {server.at(p)["involvedObject"]["name"]: server.at(p) for p in server.paths() if p.startswith(events)}
    assert (
        told["svc"]["message"]
        == "this is not a valid NetworkService and is ignored: matches is 'none'; expected a list"
    )
    assert told["never"]["message"].endswith("spec is [1, 2]; expected an object")
    assert told["odd"]["message"].endswith("expiration_time.seconds is 'soon'; expected a whole number")
    assert (told["odd"]["type"], told["odd"]["reason"]) == ("Warning", "Malformed")
    assert await names(registry.services, NetworkService()) == ["svc"]
    for name in ("svc", "never"):
        frames = NetworkService(name=name, payload="ETHERNET", path_ids=["spiffe://a/one"])
        await registry.services.register(call(frames))
        assert server.at(f"{SERVICES}/{name}")["spec"] == {
            "name": name,
            "payload": "ETHERNET",
            "path_ids": ["spiffe://a/one"],
        }


FIREWALL = [{"source_selector": {}, "routes": [{"destinationSelector": {"app": "firewall"}}]}]


async def test_a_misspelt_selector_leaves_the_service_out_with_an_event_and_no_endpoint_opens_it(server, registry):
    """Not by registering the service without matches, either: what a person wrote stays as it is."""
    server.put(f"{SERVICES}/web", spec={"payload": "IP", "matches": FIREWALL})
    events = "/api/v1/namespaces/nsm-system/events/"
    await eventually(lambda: sum(path.startswith(events) for path in server.paths()) == 1)
    (event,) = (server.at(path) for path in server.paths() if path.startswith(events))
    told = "matches[0].routes[0].destinationSelector is the spelling from before NSM 1.0; expected destination_selector"
    assert event["message"] == f"this is not a valid NetworkService and is ignored: {told}"
    assert await names(registry.services, NetworkService()) == []
    with pytest.raises(Conflict, match="'web' of that name cannot be read, and is not overwritten: matches") as refused:
        await registry.services.register(call(NetworkService(name="web", path_ids=["spiffe://a/one"])))
    assert told in str(refused.value)
    assert server.at(f"{SERVICES}/web")["spec"]["matches"] == FIREWALL


async def test_a_service_whose_matches_are_edited_into_nonsense_keeps_the_former_ones(server, registry):
    """Also if an endpoint registers it again, with another payload."""
    matches = [{"routes": [{"destination_selector": {"app": "firewall"}}]}]
    ours = NetworkService(name="web", path_ids=["spiffe://a/one"])
    await registry.services.register(call(ours))
    server.put(f"{SERVICES}/web", spec={"name": "web", "path_ids": ["spiffe://a/one"], "matches": matches})
    await eventually(lambda: registry.services.elements[-1].index.records.get("web").matches)
    server.put(f"{SERVICES}/web", spec={"name": "web", "path_ids": ["spiffe://a/one"], "matches": FIREWALL})
    events = "/api/v1/namespaces/nsm-system/events/"
    await eventually(lambda: sum(path.startswith(events) for path in server.paths()) == 1)
    answer = await registry.services.register(call(ours))
    assert answer.matches[0].routes[0].destination_selector == {"app": "firewall"}
    assert server.at(f"{SERVICES}/web")["spec"]["matches"] == FIREWALL
    await registry.services.register(call(NetworkService(name="web", payload="ETHERNET", path_ids=["spiffe://a/one"])))
    assert server.at(f"{SERVICES}/web")["spec"]["matches"] == matches


async def test_a_registry_goes_on_beside_any_nonsense_and_knows_what_was_sound(server, registry):
    """Hundreds of objects, each with another thing in it that makes no sense; the same for a replica that starts."""
    await registry.endpoints.register(call(nse("before")))
    for kind, sound in ((SERVICES, nonsense.SERVICE), (ENDPOINTS, nonsense.ENDPOINT)):
        for number, (path, spec, new) in enumerate(nonsense.all_of(sound)):
            if nonsense.must_fail(sound, path, new):
                server.put(f"{kind}/bad-{number}", spec=spec)
    await registry.services.register(call(NetworkService(name="late")))
    await registry.endpoints.register(call(nse("late")))
    async with replica(server) as other:
        for each in (registry, other):
            await found_soon(each.endpoints, NetworkServiceEndpoint(), ["before", "late"])
            await found_soon(each.services, NetworkService(), ["late"])


async def test_a_time_beyond_all_calendars_is_refused_and_not_written(server, registry):
    record = nse("late", initial_registration_time=Timestamp(seconds=2**60))
    with pytest.raises(InvalidRequest, match="'late' cannot be registered: initial_registration_time.seconds is"):
        await registry.endpoints.register(call(record))
    assert server.paths() == []


async def test_a_copy_under_another_name_does_not_stand_in_for_the_object_of_the_record(server, registry):
    await registry.services.register(call(NetworkService(name="svc", payload="ETHERNET")))
    server.put(f"{SERVICES}/copy-of-svc", spec={"name": "svc", "payload": "IP"})
    server.put(f"{SERVICES}/last", spec={"payload": "IP"})
    await found_soon(registry.services, NetworkService(name="last"), ["last"])
    assert [each.payload for each in await find(registry.services, NetworkService(name="svc"))] == ["ETHERNET"]


async def test_an_object_whose_name_was_edited_says_what_to_do(server, registry):
    await registry.services.register(call(NetworkService(name="svc")))
    server.put(f"{SERVICES}/svc", spec={"name": "other"})
    await found_soon(registry.services, NetworkService(name="svc"), [])
    with pytest.raises(
        Conflict, match="the object 'svc' is for 'other', not for 'svc'; delete it, or correct its name"
    ):
        await registry.services.register(call(NetworkService(name="svc")))


# --- what ends


async def test_an_endpoint_that_does_not_come_again_goes_and_is_deleted_once(server):
    async with replica(server, lifetime=0.3) as one, replica(server, lifetime=0.3) as other:
        await one.endpoints.register(call(nse()))
        await found_soon(other.endpoints, None, ["nse"])
        await eventually(lambda: server.paths() == [])
        assert await names(one.endpoints) == []
        await found_soon(other.endpoints, None, [])
    assert 1 <= sum(request.startswith("DELETE") for request in server.requests) <= 2


async def test_an_endpoint_that_refreshes_at_another_replica_stays(server):
    async with replica(server, lifetime=0.4) as one, replica(server, lifetime=0.4) as other:
        for turn in range(6):
            await (one, other)[turn % 2].endpoints.register(call(nse()))
            await asyncio.sleep(0.15)
            assert await names(one.endpoints) == ["nse"]
    assert not any(request.startswith("DELETE") for request in server.requests)


async def test_leftovers_of_before_are_not_found_and_are_collected(server):
    server.put(f"{ENDPOINTS}/old", spec={"name": "old", "expiration_time": {"seconds": 1_700_000_000}})
    server.put(f"{GROUP}/others/networkserviceendpoints/old2", spec={"expiration_time": {"seconds": 1_700_000_000}})
    async with replica(server) as registry:
        assert await names(registry.endpoints) == []
        await eventually(lambda: len(server.paths()) == 1)
    assert server.paths() == [f"{GROUP}/others/networkserviceendpoints/old2"]


# --- an API server that is away


async def test_an_api_server_that_is_down_fails_registrations_and_ends_nothing(server):
    async with replica(server, lifetime=0.5) as registry:
        await registry.endpoints.register(call(nse()))
        await server.stop()
        with pytest.raises(
            Unavailable, match="cannot create networkserviceendpoints.*the API server cannot be reached"
        ):
            await registry.endpoints.register(call(nse("new"), deadline=within(5)))
        await asyncio.sleep(0.8)
        (record,) = await find(registry.endpoints)
        assert record.expiration_time.to_seconds() > time.time()
        await server.start()
        async with asyncio.timeout(5):
            while True:
                try:
                    await registry.endpoints.register(call(nse("new")))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        await eventually(lambda: f"{ENDPOINTS}/nse" not in server.paths())


async def test_a_name_whose_owner_could_not_refresh_is_not_free_when_the_api_server_is_back(server):
    async with replica(server, lifetime=0.5, policies=OWNED) as registry:
        await registry.endpoints.register(call(nse(path_ids=["spiffe://a/owner"])))
        await server.stop()
        with pytest.raises(Unavailable):
            await registry.endpoints.register(call(nse("other"), deadline=within(5)))
        await asyncio.sleep(0.6)
        await server.start()
        assert await names(registry.endpoints) == ["nse"]
        for attempt in (registry.endpoints.register, registry.endpoints.unregister):
            with pytest.raises(Refused, match="'nse' was registered by spiffe://a/owner"):
                await attempt(call(nse(path_ids=["spiffe://a/thief"])))


async def test_an_api_server_that_hangs_costs_a_caller_its_own_time_only(server, registry):
    await registry.endpoints.register(call(nse("known")))
    server.delay = 30
    with pytest.raises(TimedOut, match="did not store 'new' within the caller's deadline"):
        await registry.endpoints.register(call(nse("new"), deadline=within(0.2)))
    assert await names(registry.endpoints) == ["known"]


async def test_an_endpoint_whose_refresh_the_watch_does_not_tell_stays(server, monkeypatch):
    monkeypatch.setattr(writes, "_SEEN_WITHIN", 0.1)
    async with replica(server, lifetime=1.0) as registry:
        await registry.endpoints.register(call(nse()))
        await eventually(lambda: server.watching)
        server._watchers.clear()  # the watch is silent, as one whose connection is dead
        for _ in range(3):
            await registry.endpoints.register(call(nse()))
            await asyncio.sleep(0.4)
            assert await names(registry.endpoints) == ["nse"]


async def test_a_caller_in_a_hurry_keeps_no_endpoint_that_has_ended(server):
    async with replica(server, lifetime=0.5) as registry:
        await registry.endpoints.register(call(nse()))
        server.delay = 0.1
        with pytest.raises(TimedOut):
            await registry.endpoints.register(call(nse("hasty"), deadline=within(0.05)))
        server.delay = 0.0
        await eventually(lambda: f"{ENDPOINTS}/nse" not in server.paths())
        assert "nse" not in await names(registry.endpoints)


async def test_a_missing_permission_is_told_to_who_registers(server, registry):
    server.refuse = lambda request: forbidden(request) if request.method == "POST" else None
    with pytest.raises(Unavailable, match="may not create networkserviceendpoints.networkservicemesh.io in namespace"):
        await registry.endpoints.register(call(nse()))


async def test_a_watch_that_was_compacted_loses_nothing(server, registry):
    await registry.endpoints.register(call(nse("stays")))
    await registry.endpoints.register(call(nse("goes")))
    server.drop()
    server._watchers.clear()
    server.remove(f"{ENDPOINTS}/goes")
    server.forget()
    await found_soon(registry.endpoints, None, ["stays"])
