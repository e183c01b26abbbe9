"""A workload with an identity of its own, at the doors of a manager and of a registry as they are by default."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from nsm.apis import codec
from nsm.apis.registry import Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.composed import RegistrySettings, endpoints_client, memory_registry, nsmgr
from nsm.chains.core import ENDPOINTS, SERVICES, Exhausted, InvalidRequest, Limits, MeshError, Refused, RegistryCall
from nsm.chains.core.registry import RegistryPath
from nsm.chains.identity import Authority
from nsm.chains.policy import Hosts, IdPatterns, Registration, Trust
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteRegistry, serve, server

AUTHORITY = Authority.create("test.mesh")
NAMES = ("registry", "nsmgr", "forwarder", "victim", "mallory")
FEW = Limits(registrations=3, peer_registrations=3, watches=2)
ANY = NetworkServiceEndpoint()


class Doors:
    """A manager on a unix socket, a registry on TCP, and who asks them."""

    def __init__(self, folder, pools, registry):
        self.folder, self.pools, self.registry = folder, pools, registry

    @property
    def manager(self):
        return f"unix://{self.folder}/nsmgr.sock"

    async def register(self, who, at, record, kind=ENDPOINTS, **options):
        return await RemoteRegistry(kind, self.pools[who]).register(RegistryCall(record, target=at, **options))

    async def unregister(self, who, at, record, kind=ENDPOINTS):
        await RemoteRegistry(kind, self.pools[who]).unregister(RegistryCall(record, target=at))

    async def register_socket(self, who, record):
        """As endpoints do: with the descriptor of a socket of its own."""
        path = self.folder / f"{who}-own.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
        record.url = f"unix://{path}"
        chain = endpoints_client(self.manager, self.pools[who], [SendUrl()])
        try:
            return await chain.register(RegistryCall(record))
        finally:
            await chain.aclose()
            os.unlink(path)

    def find(self, who, at, query=ANY, kind=ENDPOINTS, **options):
        return RemoteRegistry(kind, self.pools[who]).find(RegistryCall(query, target=at, **options))

    async def names(self, who, at, query=ANY):
        return sorted([found.record.name async for batch in self.find(who, at, query) for found in batch])


@asynccontextmanager
async def opened(folder, *, manager=(), registry=()):
    async with AsyncExitStack() as stack:
        identities = {name: identity_of(AUTHORITY, name) for name in NAMES}
        pools = {name: await stack.enter_async_context(Pool(of, dial_timeout=1)) for name, of in identities.items()}
        kept = memory_registry(identities["registry"], RegistrySettings(**dict(registry)))
        stack.push_async_callback(kept.aclose)
        serving = serve(["tcp://127.0.0.1:0"], kept.methods(), identities["registry"], name="registry")
        (url,) = await stack.enter_async_context(serving)
        doors = Doors(folder, pools, url)
        chains = nsmgr(
            "nsmgr", identities["nsmgr"], pools["nsmgr"], own_url="tcp://127.0.0.1:1", registry_url=url, **dict(manager)
        )
        stack.push_async_callback(chains.aclose)
        serving = serve([doors.manager], chains.methods(), identities["nsmgr"], name="nsmgr")
        await stack.enter_async_context(serving)
        yield doors


@pytest.fixture
async def doors(tmp_path):
    async with opened(tmp_path) as doors:
        yield doors


@pytest.fixture(params=["manager", "registry"])
def door(request, doors):
    return getattr(doors, request.param)


def nse(name="mine", *services, url="", **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), url=url, **fields)


async def eventually(condition):
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.01)


# --- whose a service is


async def test_a_service_that_the_registry_forgot_is_free_at_the_manager_too(tmp_path):
    """Also with another payload: one place knows owners, and it is not the manager's memory of who came by."""
    async with opened(tmp_path, registry={"service_lifetime": 0.1}) as doors:
        await doors.register("victim", doors.manager, NetworkService(name="s"), SERVICES)

        async def is_forgotten():
            found = doors.find("mallory", doors.registry, NetworkService(name="s"), SERVICES)
            return not [each async for batch in found for each in batch]

        await eventually(is_forgotten)
        wanted = NetworkService(name="s", payload="ETHERNET")
        assert (await doors.register("mallory", doors.manager, wanted, SERVICES)).payload == "ETHERNET"


async def test_a_service_that_is_provided_is_its_owner_s_at_every_door(doors, door):
    await doors.register("victim", doors.manager, NetworkService(name="s"), SERVICES)
    await doors.register_socket("victim", nse("e", "s"))
    with pytest.raises(Refused, match="registers it with payload ETHERNET, but it has payload IP"):
        await doors.register("mallory", door, NetworkService(name="s", payload="ETHERNET"), SERVICES)
    with pytest.raises(Refused, match="'s' was registered by"):
        await doors.unregister("mallory", door, NetworkService(name="s"), SERVICES)
    await doors.register("victim", doors.manager, NetworkService(name="s"), SERVICES)


# --- who may register for what


async def test_a_workload_is_no_forwarder(doors, door):
    """It would get the requests of all clients of the node, with their namespaces."""
    for services in (["forwarder"], ["svc", "forwarder"], ["forwarder", "forwarder"]):
        with pytest.raises(
            Refused, match=r"mallory may not register for .*'forwarder'; NSM_REGISTRATION_POLICY controls"
        ):
            await doors.register("mallory", door, nse("mine", *services, url="tcp://127.0.0.1:9"))
    with pytest.raises(Refused, match="NSM_REGISTRATION_POLICY"):
        await doors.register("mallory", door, NetworkService(name="forwarder"), SERVICES)
    await doors.register_socket("forwarder", nse("fwd", "forwarder"))
    assert await doors.names("victim", doors.manager) == ["fwd"]


@pytest.mark.parametrize("name", ["forwarder", "forwarder-node-1", "forwarder-kernel-node-1"])
async def test_a_workload_does_not_keep_a_forwarder_out_by_its_name(doors, door, name):
    """Names belong to whoever comes first, and forwarders start again now and then."""
    with pytest.raises(Refused, match="may not register for network service 'forwarder'"):
        await doors.register("mallory", door, nse(name, url="tcp://127.0.0.1:9"))
    await doors.register_socket("forwarder", nse(name, "forwarder"))


async def test_an_endpoint_does_not_become_a_forwarder_later(doors):
    """Not through the manager, and not behind its back, where the registry has no such policy."""
    await doors.register_socket("mallory", nse("mine"))
    with pytest.raises(Refused, match="NSM_REGISTRATION_POLICY"):
        await doors.register_socket("mallory", nse("mine", "forwarder"))
    assert await doors.names("victim", doors.manager) == ["mine"]


async def test_a_registry_that_lets_anybody_be_a_forwarder_makes_none_at_a_manager(tmp_path):
    anybody = Registration.parse("forwarder=spiffe://*/**")
    trust = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr"]))
    async with opened(tmp_path, registry={"registration": anybody, "trust": trust}) as doors:
        await doors.register_socket("mallory", nse("mine"))
        await doors.register("mallory", doors.registry, nse("mine", "forwarder", url="tcp://127.0.0.1:1"))
        await doors.register("mallory", doors.registry, nse("leftover", "forwarder", url="tcp://127.0.0.1:1"))

        async def is_told():
            return await doors.names("victim", doors.registry, nse("", "forwarder")) == ["leftover", "mine"]

        await eventually(is_told)
        assert await doors.names("victim", doors.manager, nse("", "forwarder")) == []


async def test_whoever_a_manager_speaks_for_is_judged_by_who_he_is(tmp_path):
    """An intermediary vouches for others, and does not lend them its rights."""
    trust = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr"]))
    rules = Registration.parse("svc=spiffe://test.mesh/victim")
    async with opened(tmp_path, registry={"registration": rules, "trust": trust}) as doors:
        with pytest.raises(Refused, match="mallory may not register for network service 'svc'"):
            await doors.register_socket("mallory", nse("mine"))
        await doors.register_socket("victim", nse("theirs"))
        assert await doors.names("victim", doors.manager) == ["theirs"]


async def test_a_service_is_closed_by_listing_who_provides_it(tmp_path):
    rules = Registration.parse("svc=spiffe://test.mesh/victim, *=spiffe://test.mesh/nobody")
    async with opened(tmp_path, registry={"registration": rules}) as doors:
        for record in (nse(url="tcp://127.0.0.1:9"), nse("mine", "other"), NetworkServiceEndpoint(name="of none")):
            with pytest.raises(Refused, match="NSM_REGISTRATION_POLICY"):
                await doors.register("mallory", doors.registry, record)
        await doors.register("victim", doors.registry, nse("theirs", url="tcp://127.0.0.1:9"))


# --- where endpoints may be

NO_URLS = [
    "unix:///",
    "unix:///etc/passwd",
    "unix://../x",
    "unix:x",
    "file:///proc/self/ns/net",
    "http://127.0.0.1:80",
    "127.0.0.1:80",
    "tcp://user:secret@127.0.0.1:80",
    "tcp://127.0.0.1:80/path",
    "tcp://127.0.0.1:80?query",
    "tcp://127.0.0.1:80#fragment",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:99999",
    "tcp://127.1:80",
    "tcp://2130706433:80",
    "tcp://0x7f000001:80",
    "tcp://:80",
    "tcp://127.0.0.1:80\n",
    "tcp://\u0661:80",
    "inode://-1/1",
    f"inode://1/{'9' * 5000}",
    "tcp://" + "a" * 600 + ":80",
]
OTHERS_PLACES = [
    "tcp://192.0.2.7:22",
    "tcp://[2001:db8::1]:22",
    "tcp://169.254.169.254:80",
    "tcp://0.0.0.0:80",
    "tcp://[::]:80",
    "tcp://224.0.0.1:80",
    "tcp://[ff02::1]:80",
    "tcp://[fe80::1]:80",
    "tcp://255.255.255.255:80",
    "tcp://localhost:80",
    "tcp://intranet.example.org:443",
]


@pytest.mark.parametrize("url", NO_URLS)
async def test_nothing_but_a_socket_of_its_own_and_a_place_on_tcp_is_registered(doors, door, url):
    with pytest.raises((InvalidRequest, Refused)):
        await doors.register("mallory", door, nse(url=url))
    assert await doors.names("victim", door) == []


@pytest.mark.parametrize("url", OTHERS_PLACES)
async def test_others_are_not_led_to_a_third_party(doors, door, url):
    with pytest.raises(Refused, match="which is not its own address; NSM_REGISTRATION_HOSTS lists"):
        await doors.register("mallory", door, nse(url=url))


async def test_a_workload_with_a_network_of_its_own_names_nothing_of_its_managers(doors, monkeypatch):
    """The loopback that its manager dials is not the one that it means."""
    await doors.register("victim", doors.manager, nse("near", url="tcp://127.0.0.1:22"))
    monkeypatch.setattr(server, "_network_of", lambda process: (0, 1) if process == "self" else (0, 2))
    with pytest.raises(Refused, match="NSM_REGISTRATION_HOSTS"):
        await doors.register("mallory", doors.manager, nse(url="tcp://127.0.0.1:22"))


async def test_a_registry_takes_no_descriptors(doors):
    with pytest.raises(Refused, match="not its own address"):
        await doors.register("mallory", doors.registry, nse(url="inode://1/2"))


async def test_who_is_listed_may_be_elsewhere(tmp_path):
    hosts = Hosts.parse("192.0.2.0/24,*.example.org")
    async with opened(tmp_path, registry={"hosts": hosts}, manager={"hosts": hosts}) as doors:
        for at in (doors.manager, doors.registry):
            await doors.register("victim", at, nse(f"theirs-{at}", url="tcp://192.0.2.7:5003"))
            await doors.register("victim", at, nse(f"named-{at}", url="tcp://gw.example.org:5003"))
            for url in ("tcp://192.0.3.7:5003", "tcp://example.org.evil.net:1"):
                with pytest.raises(Refused):
                    await doors.register("mallory", at, nse(url=url))


# --- how much

LONG = "x" * 2000


def labels(number, length=1):
    return {"svc": NetworkServiceLabels(labels={f"{each}": "v" * length for each in range(number)})}


def matches(number, routes=1):
    destinations = [Destination(destination_selector={"a": "b"}) for _ in range(routes)]
    return NetworkService(name="big", matches=[Match(routes=destinations) for _ in range(number)])


def with_unknown(size):
    """A field of a later version, which is kept and passed on."""
    encoded = bytes([0xFA, 0x07, *(0x80 | size & 0x7F, 0x80 | size >> 7 & 0x7F, size >> 14)]) + bytes(size)
    return codec.decode(NetworkServiceEndpoint, codec.encode(nse()) + encoded)


TOO_LARGE = [
    pytest.param(nse(LONG), "name_length", id="name"),
    pytest.param(nse("mine", LONG), "name_length", id="service"),
    pytest.param(nse("mine", *map(str, range(1000))), "services", id="services"),
    pytest.param(nse(network_service_labels=labels(1000)), "labels", id="labels"),
    pytest.param(nse(network_service_labels=labels(1, 2000)), "label_length", id="label"),
    pytest.param(nse(network_service_labels={LONG: NetworkServiceLabels()}), "name_length", id="labels of"),
    pytest.param(nse(network_service_labels=labels(200, 1000)), "record_bytes", id="all"),
    pytest.param(nse(path_ids=["x"] * 100), "path_ids", id="identities"),
    pytest.param(nse(path_ids=["x" * 100_000]), "record_bytes", id="identity"),
    pytest.param(with_unknown(70_000), "record_bytes", id="what nobody knows"),
    pytest.param(NetworkService(name=LONG), "name_length", id="name of a service"),
    pytest.param(NetworkService(name="a", payload=LONG), "name_length", id="payload"),
    pytest.param(matches(100), "matches", id="matches"),
    pytest.param(matches(2, 50), "matches", id="destinations"),
    pytest.param(NetworkService(name="a", matches=[Match(source_selector={"a": LONG})]), "label_length", id="selector"),
]


def kind_of(record):
    return SERVICES if isinstance(record, NetworkService) else ENDPOINTS


@pytest.mark.parametrize(("record", "limit"), TOO_LARGE)
async def test_what_is_too_large_is_neither_stored_nor_asked_for(doors, door, record, limit):
    with pytest.raises(
        InvalidRequest,
        match=rf"too large: {limit} is \d+, at most \d+ (are allowed|can be) (here )?\(NSM_LIMITS={limit}:",
    ):
        await doors.register("mallory", door, record, kind_of(record))
    with pytest.raises(InvalidRequest, match="too large"):
        async for _ in doors.find("mallory", door, record, kind_of(record)):
            pass


async def test_the_largest_record_passes_a_manager_that_adds_to_it_and_is_found(tmp_path):
    where = {"nodeName": "n" * 63, "podName": "p" * 63, "clusterName": "c" * 63}
    async with opened(tmp_path, manager={"labels": where}) as doors:
        services = [f"service-{number}" for number in range(64)]
        has = {name: NetworkServiceLabels(labels={f"l{n}": "x" * 165 for n in range(4)}) for name in services}
        record = nse("big", *services, network_service_labels=has)
        await doors.register_socket("victim", record)
        for at in (doors.manager, doors.registry):
            assert await doors.names("victim", at) == ["big"]


@pytest.mark.parametrize("at", ["manager", "registry"])
async def test_one_workload_does_not_fill_a_registry(tmp_path, at):
    """Its services and endpoints are counted together, and what it unregisters is not counted any more."""
    options = {"limits": FEW, "trust": Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr"]))}
    async with opened(tmp_path, registry=options, manager=options) as doors:
        at = getattr(doors, at)
        for number in range(2):
            await doors.register("mallory", at, NetworkService(name=f"{number}"), SERVICES)
        if at == doors.manager:
            await doors.register_socket("mallory", nse())
        else:
            await doors.register("mallory", at, nse(url="tcp://127.0.0.1:9"))
        with pytest.raises(
            Exhausted, match="mallory has already registered 3 records of .* and (peer_)?registrations is 3"
        ):
            await doors.register("mallory", at, NetworkService(name="more"), SERVICES)
        await doors.register("victim", at, NetworkService(name="theirs"), SERVICES)
        await doors.register("mallory", at, NetworkService(name="1", payload="IP"), SERVICES)
        await doors.unregister("mallory", at, nse())
        await doors.register("mallory", at, NetworkService(name="more"), SERVICES)


async def test_a_workload_that_goes_past_the_managers_has_no_more_than_a_client(tmp_path):
    """A manager registers for a whole node. Eight workloads with as much each would fill what everybody keeps."""
    limits = Limits(registered_bytes=20_000, peer_registered_bytes=100_000)
    trust = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/nsmgr"]))
    async with opened(tmp_path, registry={"limits": limits, "trust": trust}) as doors:
        await doors.register("mallory", doors.registry, nse("mine", network_service_labels=labels(15, 1000)))
        with pytest.raises(Exhausted, match="mallory .* and registered_bytes is 20000"):
            await doors.register("mallory", doors.registry, nse("more", network_service_labels=labels(15, 1000)))


async def test_bytes_are_counted_too_and_a_refused_registration_is_not(tmp_path):
    limits = Limits(peer_registered_bytes=20_000)
    async with opened(tmp_path, registry={"limits": limits}) as doors:
        for _ in range(2):
            with pytest.raises(Refused):
                await doors.register("mallory", doors.registry, nse("a", url="tcp://192.0.2.1:1"))
        big = nse("mine", network_service_labels=labels(15, 1000))
        await doors.register("mallory", doors.registry, big)
        await doors.register("mallory", doors.registry, big)
        with pytest.raises(Exhausted, match="peer_registered_bytes is 20000"):
            await doors.register("mallory", doors.registry, nse("other", network_service_labels=labels(15, 1000)))


async def test_watches_are_counted(tmp_path):
    async with opened(tmp_path, registry={"limits": FEW}, manager={"limits": FEW}) as doors:
        for at in (doors.manager, doors.registry):
            watches = [doors.find("mallory", at, watch=True) for _ in range(3)]
            reading = [asyncio.ensure_future(anext(watch)) for watch in watches]
            done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_EXCEPTION, timeout=2)
            (refusal,) = [each.exception() for each in done if each.exception() is not None]
            assert "mallory already has 2 watches" in str(refusal)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            for watch in watches:
                await watch.aclose()


async def test_a_watch_that_asks_for_much_is_refused_and_a_find_is_not(doors, door):
    """Each record that changes is compared with each of a peer's thousand watches, while everybody waits."""
    asked = NetworkServiceEndpoint(network_service_labels=labels(5, 900))
    assert not [found async for batch in doors.find("mallory", door, asked) for found in batch]
    with pytest.raises(InvalidRequest, match="NSM_LIMITS=watch:"):
        await anext(doors.find("mallory", door, asked, watch=True))


# --- paths

BROKEN_PATHS = [
    "[" * 50_000,
    '{"Index":1e999,"PathSegments":null}',
    '{"Index":-5,"PathSegments":[{"token":"a"}]}',
    '{"Index":true}',
    '{"Index":"1"}',
    '{"Index":0,"PathSegments":[{"token":{}}]}',
    '{"Index":0,"PathSegments":[1]}',
    '{"Index":0,"PathSegments":7}',
    "{" + '"a":' * 3,
    "7",
]


@pytest.mark.parametrize("text", BROKEN_PATHS, ids=range(len(BROKEN_PATHS)))
def test_a_path_that_is_none_is_the_callers_fault(text):
    with pytest.raises(InvalidRequest, match="not a registry path") as error:
        RegistryPath.from_metadata(text)
    assert len(str(error.value)) < 400


async def test_a_path_has_an_end(doors, door):
    with pytest.raises(InvalidRequest, match="has passed 100 components; at most 16"):
        await doors.register("mallory", door, nse(), path=RegistryPath(0, [""] * 100))


async def test_attacks_leave_the_others_as_they_were(doors):
    """After all that is refused a victim registers and is found, at the manager and through the registry."""
    for record, _ in (param.values for param in TOO_LARGE):
        with pytest.raises(MeshError):
            await doors.register("mallory", doors.manager, record, kind_of(record))
    await doors.register_socket("victim", nse("theirs"))
    assert await doors.names("victim", doors.registry) == await doors.names("victim", doors.manager) == ["theirs"]
