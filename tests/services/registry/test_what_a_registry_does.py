"""What whoever asks a registry may count on, wherever it keeps its records: in memory and in custom resources alike."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from nsm.apis.registry import Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import RegistrySettings, memory_registry
from nsm.chains.core import InvalidRequest, Refused
from nsm.services.registry.custom_resources import custom_resource_registry
from nsm.services.registry.etcd import etcd_registry
from nsm.services.registry.sqlite import sqlite_registry
from nsm.services.registry.store_url import store_url
from tests.kube.stand_in import stand_in
from tests.services.registry.calls import ANY, OTHER, OWN, asks, find, names, nse
from tests.services.registry.etcd_cluster import EtcdCluster


@asynccontextmanager
async def in_memory(lifetime):
    registry = memory_registry(OWN, RegistrySettings(lifetime=lifetime))
    try:
        yield registry
    finally:
        await registry.aclose()


@asynccontextmanager
async def in_custom_resources(lifetime):
    async with (
        stand_in() as server,
        custom_resource_registry(
            OWN,
            RegistrySettings(lifetime=lifetime),
            namespace="nsm-system",
            kubeconfig=server.url,
            name="registry",
        ) as registry,
    ):
        yield registry


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture(params=["memory", "custom resources", "sqlite", "etcd"])
def store(request, tmp_path):
    match request.param:
        case "memory":
            return in_memory
        case "custom resources":
            return in_custom_resources
        case "sqlite":
            return lambda lifetime: sqlite_registry(OWN, RegistrySettings(lifetime=lifetime), tmp_path / "registry.db")
    url = f"{request.getfixturevalue('etcd').url}/{tmp_path.name}"
    return lambda lifetime: etcd_registry(OWN, RegistrySettings(lifetime=lifetime), store_url(url))


@pytest.fixture
async def registry(store):
    async with store(60.0) as registry:
        yield registry


async def told(watch, count):
    """So many changes, in however many batches."""
    changes = []
    async with asyncio.timeout(5):
        while len(changes) < count:
            changes += await anext(watch)
    return [(found.record.name, found.record.url, found.deleted) for found in changes]


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


# --- endpoints


async def test_an_endpoint_is_found_by_its_name_its_services_its_labels_and_its_url(registry):
    for number in range(10):
        record = nse(f"n{number}", f"s{number % 2}", "all", url=f"tcp://h:{number}")
        record.network_service_labels["all"] = NetworkServiceLabels(labels={"half": str(number // 5)})
        await registry.endpoints.register(asks(record))
    assert await names(registry.endpoints, NetworkServiceEndpoint(name="n3")) == ["n3"]
    assert await names(registry.endpoints, nse("", "s1", "all")) == ["n1", "n3", "n5", "n7", "n9"]
    assert await names(registry.endpoints, NetworkServiceEndpoint(url="tcp://h:4")) == ["n4"]
    half = NetworkServiceEndpoint(network_service_labels={"all": NetworkServiceLabels(labels={"half": "1"})})
    assert await names(registry.endpoints, half) == ["n5", "n6", "n7", "n8", "n9"]
    assert await names(registry.endpoints, nse("", "s1", network_service_labels=half.network_service_labels)) == [
        "n5",
        "n7",
        "n9",
    ]
    assert await names(registry.endpoints, nse("", "nothing")) == []
    assert len(await names(registry.endpoints, ANY)) == 10


async def test_the_answer_says_who_passed_it_when_it_came_and_until_when_it_lives(registry):
    before = time.time()
    record = await registry.endpoints.register(asks(nse()))
    assert record.path_ids == ["spiffe://test.mesh/one", "spiffe://test.mesh/registry"]
    assert before - 1 <= record.initial_registration_time.to_seconds() <= time.time() + 1
    assert before + 59 <= record.expiration_time.to_seconds() <= time.time() + 60
    assert await find(registry.endpoints, ANY) == [record]


async def test_who_comes_again_changes_what_is_found_and_has_come_when_it_came_first(registry):
    first = await registry.endpoints.register(asks(nse("a", "before")))
    again = await registry.endpoints.register(asks(nse("a", "after", url="tcp://moved:1")))
    assert again.initial_registration_time == first.initial_registration_time
    assert again.expiration_time.to_seconds() >= first.expiration_time.to_seconds()
    assert await find(registry.endpoints, nse("", "before")) == []
    assert [record.url for record in await find(registry.endpoints, nse("", "after"))] == ["tcp://moved:1"]


async def test_what_was_found_is_not_changed_by_the_caller_or_by_the_next_registration(registry):
    record = nse("a", url="tcp://one:1")
    await registry.endpoints.register(asks(record))
    record.url = "changed by the caller"
    (found,) = await find(registry.endpoints, ANY)
    await registry.endpoints.register(asks(nse("a", url="tcp://two:1")))
    assert found.url == "tcp://one:1"


async def test_who_unregisters_is_not_found_any_more_and_may_do_so_twice(registry):
    await registry.endpoints.register(asks(nse("a")))
    await registry.endpoints.register(asks(nse("b")))
    for _ in range(2):
        await registry.endpoints.unregister(asks(nse("a")))
        assert await names(registry.endpoints, ANY) == ["b"]
    await registry.endpoints.unregister(asks(nse("never was")))


@pytest.mark.parametrize("name", ["Vpn_West@example", "ä", "x" * 300, "a/b", " "])
async def test_an_endpoint_may_have_any_name(registry, name):
    await registry.endpoints.register(asks(nse(name)))
    assert await names(registry.endpoints, NetworkServiceEndpoint(name=name)) == [name]
    await registry.endpoints.unregister(asks(nse(name)))
    assert await names(registry.endpoints, ANY) == []


async def test_a_record_without_a_name_is_refused(registry):
    with pytest.raises(InvalidRequest, match="has no name"):
        await registry.endpoints.register(asks(nse("")))
    with pytest.raises(InvalidRequest, match="has no name"):
        await registry.services.register(asks(NetworkService()))


async def test_an_endpoint_may_ask_to_end_earlier_but_not_later(registry):
    early, late = (Timestamp.from_seconds(time.time() + seconds) for seconds in (10, 1000))
    answer = await registry.endpoints.register(asks(nse("a", expiration_time=early)))
    assert answer.expiration_time == early
    answer = await registry.endpoints.register(asks(nse("b", expiration_time=late)))
    assert answer.expiration_time.to_seconds() <= time.time() + 60


async def test_an_endpoint_that_does_not_come_again_ends_and_its_name_is_free(store):
    async with store(3.0) as registry:  # longer than a busy API server takes to tell of what was written
        watch = registry.endpoints.find(asks(nse("", "svc"), watch=True))
        assert await anext(watch) == []
        await registry.endpoints.register(asks(nse("goes")))
        seen = await told(watch, 1)
        for _ in range(4):
            await registry.endpoints.register(asks(nse("stays")))
            await asyncio.sleep(0.9)
        assert await names(registry.endpoints, ANY) == ["stays"]
        while ("goes", "", True) not in seen:
            seen += await told(watch, 1)
        assert ("stays", "", True) not in seen
        await watch.aclose()
        await registry.endpoints.register(asks(nse("goes"), OTHER))


async def test_a_watch_tells_what_is_there_what_comes_changes_and_goes(registry):
    await registry.endpoints.register(asks(nse("there", url="tcp://h:1")))
    watch = registry.endpoints.find(asks(nse("", "svc"), watch=True))
    assert await told(watch, 1) == [("there", "tcp://h:1", False)]
    await registry.endpoints.register(asks(nse("elsewhere", "another")))
    await registry.endpoints.register(asks(nse("new", url="tcp://h:2")))
    assert await told(watch, 1) == [("new", "tcp://h:2", False)]
    await registry.endpoints.register(asks(nse("new", url="tcp://h:3")))
    assert await told(watch, 1) == [("new", "tcp://h:3", False)]
    await registry.endpoints.unregister(asks(nse("there")))
    assert [(name, gone) for name, _, gone in await told(watch, 1)] == [("there", True)]
    await watch.aclose()


async def test_a_watch_tells_that_a_record_does_not_match_any_more(registry):
    watch = registry.endpoints.find(asks(nse("", "old"), watch=True))
    assert await anext(watch) == []
    await registry.endpoints.register(asks(nse("nse", "old")))
    assert await told(watch, 1) == [("nse", "", False)]
    await registry.endpoints.register(asks(nse("nse", "new")))
    assert await told(watch, 1) == [("nse", "", True)]
    await registry.endpoints.register(asks(nse("nse", "new", "old")))
    assert await told(watch, 1) == [("nse", "", False)]
    await registry.endpoints.unregister(asks(nse("nse")))
    assert await told(watch, 1) == [("nse", "", True)]
    await watch.aclose()


async def test_a_watch_for_what_nobody_provides_yet_begins_with_nothing(registry):
    watch = registry.endpoints.find(asks(nse("", "svc"), watch=True))
    assert await anext(watch) == []
    await registry.endpoints.register(asks(nse()))
    assert await told(watch, 1) == [("nse", "", False)]
    await watch.aclose()


async def test_many_registrations_of_one_name_at_once_leave_one_record(registry):
    urls = {f"tcp://h:{number}" for number in range(10)}
    answers = await asyncio.gather(*(registry.endpoints.register(asks(nse(url=url))) for url in urls))
    assert {answer.url for answer in answers} == urls
    (record,) = await find(registry.endpoints, ANY)
    assert record.url in urls


# --- owners


async def test_a_name_belongs_to_who_registered_it_until_it_goes(registry):
    await registry.endpoints.register(asks(nse("mine")))
    for attempt in (registry.endpoints.register, registry.endpoints.unregister):
        with pytest.raises(Refused, match="'mine' was registered by spiffe://test.mesh/one"):
            await attempt(asks(nse("mine", url="tcp://thief:1"), OTHER))
    assert [record.url for record in await find(registry.endpoints, ANY)] == [""]
    await registry.endpoints.unregister(asks(nse("mine")))
    await registry.endpoints.register(asks(nse("mine"), OTHER))


async def test_who_writes_another_owner_into_a_record_is_still_itself(registry):
    await registry.endpoints.register(asks(nse("mine")))
    forged = nse("mine", path_ids=["spiffe://test.mesh/one"])
    with pytest.raises(Refused):
        await registry.endpoints.register(asks(forged, OTHER))
    record = await registry.endpoints.register(asks(nse("other's", path_ids=["spiffe://test.mesh/one"]), OTHER))
    assert record.path_ids[0] == "spiffe://test.mesh/other"


async def test_a_caller_without_a_token_is_refused_and_nothing_is_written(registry):
    for chain, record in ((registry.endpoints, nse()), (registry.services, NetworkService(name="svc"))):
        call = asks(record)
        call.token = None
        with pytest.raises(Refused, match="tokens_valid: segment 0 has no token"):
            await chain.register(call)
    assert await find(registry.endpoints, ANY) == []
    assert await find(registry.services, NetworkService()) == []


# --- services


async def test_a_service_carries_ip_unless_it_says_otherwise_and_is_found_with_its_matches(registry):
    matches = [
        Match(
            source_selector={"app": "a"},
            routes=[Destination(destination_selector={"via": "{{ .nodeName }}"}, weight=3)],
            fallthrough=True,
        )
    ]
    answer = await registry.services.register(asks(NetworkService(name="svc", matches=matches)))
    assert (answer.payload, answer.matches) == ("IP", matches)
    await registry.services.register(asks(NetworkService(name="frames", payload="ETHERNET")))
    (service,) = await find(registry.services, NetworkService(name="svc"))
    assert (service.payload, service.matches) == ("IP", matches)
    assert await names(registry.services, NetworkService(payload="ETHERNET")) == ["frames"]
    await registry.services.unregister(asks(NetworkService(name="svc")))
    assert await names(registry.services, NetworkService()) == ["frames"]


async def test_who_may_not_say_what_a_service_is_hears_how_to_provide_it(registry):
    """As the endpoint of one's own did whose service the topology file describes: it was refused, and no more said."""
    match = Match(routes=[Destination(destination_selector={"tier": "gold"})])
    await registry.services.register(asks(NetworkService(name="svc", matches=[match])))
    await registry.endpoints.register(asks(nse("a")))
    remedy = (
        r"may provide this service without registering it \(NSM_REGISTER_SERVICE=false\), .*payload IP and 1 matches"
    )
    with pytest.raises(Refused, match=remedy):
        await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET"), OTHER))
    await registry.endpoints.register(asks(nse("b"), OTHER))


async def test_several_identities_may_provide_one_service_if_they_agree_on_it(registry):
    await registry.services.register(asks(NetworkService(name="svc")))
    await registry.endpoints.register(asks(nse("a")))
    await registry.services.register(asks(NetworkService(name="svc", payload="IP"), OTHER))
    with pytest.raises(Refused, match="'svc' was registered by spiffe://test.mesh/one"):
        await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET"), OTHER))
    with pytest.raises(Refused, match="'svc' was registered by spiffe://test.mesh/one"):
        await registry.services.unregister(asks(NetworkService(name="svc"), OTHER))
    assert [service.payload for service in await find(registry.services, NetworkService(name="svc"))] == ["IP"]


async def test_a_service_is_watched(registry):
    watch = registry.services.find(asks(NetworkService(name="svc"), watch=True))
    assert await anext(watch) == []
    await registry.services.register(asks(NetworkService(name="another")))
    await registry.services.register(asks(NetworkService(name="svc")))
    (found,) = await anext(watch)
    assert (found.record.name, found.deleted) == ("svc", False)
    await registry.services.unregister(asks(NetworkService(name="svc")))
    (found,) = await anext(watch)
    assert (found.record.name, found.deleted) == ("svc", True)
    await watch.aclose()
