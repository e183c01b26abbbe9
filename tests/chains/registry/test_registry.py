"""Registries: memory, expiry, owners, managers' bypass and cache, clients that keep what they registered."""

import asyncio
import time

import pytest

from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import memory_registry
from nsm.chains.core import (
    ENDPOINTS,
    Found,
    InvalidRequest,
    Refused,
    RegistryCall,
    RegistryChain,
    RegistryElement,
    TimedOut,
    Unavailable,
)
from nsm.chains.identity import Authority
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.client_info import RegistryClientInfo
from nsm.chains.registry.connect import RegistryConnect
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.heal import RegistryHeal
from nsm.chains.registry.local_bypass import LocalBypass
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.refresh import RegistryRefresh
from nsm.chains.registry.retry import RegistryRetry
from nsm.chains.registry.set_payload import SetPayload
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from nsm.chains.testing.identity import identity_of

AUTHORITY = Authority.create("test.mesh")


def nse(name="nse", *services, **fields):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), **fields)


async def find(chain, query=None, **options):
    return [
        f.record
        async for batch in chain.find(RegistryCall(query or NetworkServiceEndpoint(), **options))
        for f in batch
    ]


class Probe(RegistryElement):
    def __init__(self, *failures):
        self.registered, self.unregistered, self.failures = [], [], list(failures)

    async def register(self, call, rest):
        self.registered.append((call.record.name, getattr(call.record, "url", None)))
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        return await rest.register(call)

    async def unregister(self, call, rest):
        self.unregistered.append((call.record.name, getattr(call.record, "url", None)))
        await rest.unregister(call)


# --- memory


async def test_records_are_found_by_name_by_service_and_not_after_they_went():
    chain = RegistryChain([RegistryBegin(), Memory()])
    for number in range(10):
        await chain.register(RegistryCall(nse(f"n{number}", f"s{number % 2}", "all")))
    assert [r.name for r in await find(chain, NetworkServiceEndpoint(name="n3"))] == ["n3"]
    assert [r.name for r in await find(chain, nse("", "s1", "all"))] == ["n1", "n3", "n5", "n7", "n9"]
    assert len(await find(chain)) == 10
    await chain.register(RegistryCall(nse("n3", "elsewhere")))
    assert len(await find(chain, nse("", "s1"))) == 4
    await chain.unregister(RegistryCall(nse("n3")))
    assert await find(chain, NetworkServiceEndpoint(name="n3")) == []
    assert await find(chain, nse("", "elsewhere")) == []


async def test_a_watch_goes_on_with_the_latest_of_each_record_and_stops_nobody():
    memory = Memory()
    chain = RegistryChain([RegistryBegin(), memory])
    await chain.register(RegistryCall(nse("there")))
    watch = chain.find(RegistryCall(nse("", "svc"), watch=True))
    assert await anext(watch) == [Found(nse("there"))]
    for number in range(1000):
        await chain.register(RegistryCall(nse("new", "svc", url=f"tcp://h:{number}")))
    await chain.register(RegistryCall(nse("other", "not watched")))
    await chain.unregister(RegistryCall(nse("there")))
    batch = await anext(watch)
    assert [(f.record.name, f.record.url, f.deleted) for f in batch] == [
        ("new", "tcp://h:999", False),
        ("there", "", True),
    ]
    await watch.aclose()
    await asyncio.sleep(1)
    assert memory.records._watchers == set()


async def test_what_was_found_is_not_changed_by_the_next_registration():
    chain = RegistryChain([RegistryBegin(), Memory()])
    record = nse("a")
    await chain.register(RegistryCall(record))
    record.url = "changed by the caller"
    assert (await find(chain))[0].url == ""


# --- begin, expiry, times


async def test_a_record_without_a_name_is_refused():
    with pytest.raises(InvalidRequest, match="has no name"):
        await RegistryChain([RegistryBegin()]).register(RegistryCall(nse("")))


async def test_an_endpoint_that_does_not_come_again_is_unregistered():
    begin, probe, memory = RegistryBegin(), Probe(), Memory()
    chain = RegistryChain([begin, Expire(60), probe, memory])
    record = await chain.register(RegistryCall(nse("a")))
    assert record.expiration_time.to_seconds() == pytest.approx(time.time() + 60, abs=1)
    await asyncio.sleep(50)
    await chain.register(RegistryCall(nse("a")))
    await asyncio.sleep(55)
    assert len(await find(chain)) == 1
    await asyncio.sleep(10)
    assert await find(chain) == []
    assert len(begin) == 0


async def test_an_endpoint_may_ask_to_end_earlier_but_not_later():
    chain = RegistryChain([RegistryBegin(), Expire(60)])
    early, late = (Timestamp.from_seconds(time.time() + s) for s in (10, 1000))
    assert (await chain.register(RegistryCall(nse("a", expiration_time=early)))).expiration_time == early
    assert (
        await chain.register(RegistryCall(nse("b", expiration_time=late)))
    ).expiration_time.to_seconds() < time.time() + 61


async def test_the_time_of_the_first_registration_stays():
    chain = RegistryChain([RegistryBegin(), SetRegistrationTime()])
    first = (await chain.register(RegistryCall(nse("a")))).initial_registration_time
    again = (
        await chain.register(RegistryCall(nse("a", initial_registration_time=Timestamp(1))))
    ).initial_registration_time
    assert first == again
    given = (
        await chain.register(RegistryCall(nse("b", initial_registration_time=Timestamp(1))))
    ).initial_registration_time
    assert given == Timestamp(1)


async def test_a_service_carries_ip_unless_it_says_otherwise_and_endpoints_get_labels():
    payload = RegistryChain([SetPayload()])
    assert (await payload.register(RegistryCall(NetworkService(name="a")))).payload == "IP"
    assert (await payload.register(RegistryCall(NetworkService(name="a", payload="ETHERNET")))).payload == "ETHERNET"
    info = RegistryChain([RegistryClientInfo({"nodeName": "n1", "podName": ""})])
    assert (await info.register(RegistryCall(nse("a", "x", "y")))).network_service_labels["y"].labels == {
        "nodeName": "n1"
    }


# --- owners


def asks(record, caller, registry, **fields):
    """A call as it arrives at the registry over mTLS."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from nsm.chains.core import Peer

    def peer(identity):
        return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))

    return RegistryCall(record, peer=peer(caller), token=caller.token(peer(registry)), **fields)


async def test_a_name_belongs_to_who_registered_it_until_it_goes():
    own, one, other = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))
    registry = memory_registry(own)
    record = await registry.endpoints.register(asks(nse("mine"), one, own))
    assert record.path_ids == ["spiffe://test.mesh/one", "spiffe://test.mesh/registry"]
    await registry.endpoints.register(asks(nse("mine"), one, own))
    for attempt in (registry.endpoints.register, registry.endpoints.unregister):
        with pytest.raises(Refused, match="'mine' was registered by spiffe://test.mesh/one"):
            await attempt(asks(nse("mine"), other, own))
    assert len(await find(registry.endpoints)) == 1
    await registry.endpoints.unregister(asks(nse("mine"), one, own))
    await registry.endpoints.register(asks(nse("mine"), other, own))
    await registry.aclose()


async def test_several_identities_may_provide_one_service_if_they_agree_on_it():
    own, one, other = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))
    registry = memory_registry(own)
    await registry.services.register(asks(NetworkService(name="svc"), one, own))
    await registry.endpoints.register(asks(nse("provider", "svc"), one, own))
    await registry.services.register(asks(NetworkService(name="svc", payload="IP"), other, own))
    await registry.endpoints.register(asks(nse("e", "svc"), other, own))
    with pytest.raises(Refused, match="client_allowed: network service 'svc' .* registers it with other matches"):
        await registry.services.register(asks(NetworkService(name="svc", matches=[Match()]), other, own))
    with pytest.raises(Refused, match="client_allowed"):
        await registry.services.unregister(asks(NetworkService(name="svc"), other, own))
    await registry.aclose()


async def test_a_service_that_is_provided_keeps_its_payload_and_the_error_says_which():
    own, one, other = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))
    registry = memory_registry(own)
    await registry.services.register(asks(NetworkService(name="svc"), one, own))
    await registry.endpoints.register(asks(nse("e", "svc"), one, own))
    with pytest.raises(
        Refused,
        match=r"'svc' was registered by \S+/one; \S+/other registers it with payload ETHERNET, but it has payload IP",
    ):
        await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET"), other, own))
    await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET"), one, own))
    with pytest.raises(Refused, match="registers it with payload IP, but it has payload ETHERNET"):
        await registry.services.register(asks(NetworkService(name="svc"), other, own))
    await registry.aclose()


async def test_a_service_that_nobody_provides_any_more_is_free_for_another_payload():
    """An endpoint that ends leaves its service, which another one may provide otherwise."""
    own, one, other = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))
    registry = memory_registry(own)
    await registry.services.register(asks(NetworkService(name="svc"), one, own))
    await registry.endpoints.register(asks(nse("e", "svc"), one, own))
    await registry.endpoints.unregister(asks(nse("e", "svc"), one, own))
    await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET"), other, own))
    await registry.endpoints.register(asks(nse("e", "svc"), other, own))
    with pytest.raises(Refused, match="was registered by .*/other"):
        await registry.services.register(asks(NetworkService(name="svc"), one, own))
    await registry.aclose()


async def test_the_matches_of_a_service_that_nobody_provides_yet_stay_the_owner_s():
    """Whoever came first would else lead clients past the firewall that an operator put before the gateway."""
    own, one, other = (identity_of(AUTHORITY, name) for name in ("registry", "operator", "other"))
    registry = memory_registry(own)
    matches = [Match(source_selector={"app": "firewall"})]
    await registry.services.register(asks(NetworkService(name="svc", matches=matches), one, own))
    await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET", matches=matches), other, own))
    for attempt in (registry.services.register, registry.services.unregister):
        with pytest.raises(Refused, match="was registered by .*/operator"):
            await attempt(asks(NetworkService(name="svc", payload="ETHERNET"), other, own))
    await registry.aclose()


async def test_a_caller_without_a_token_is_refused():
    own, one = identity_of(AUTHORITY, "registry"), identity_of(AUTHORITY, "one")
    registry = memory_registry(own)
    call = asks(nse("a"), one, own)
    call.token = None
    with pytest.raises(Refused, match="tokens_valid: segment 0 has no token"):
        await registry.endpoints.register(call)
    assert await find(registry.endpoints) == []
    await registry.aclose()


# --- managers


async def test_local_endpoints_are_published_under_the_manager_s_url_and_found_under_their_own():
    probe, memory = Probe(), Memory()
    chain = RegistryChain([RegistryBegin(), LocalBypass("tcp://me:1"), probe, memory])
    record = await chain.register(RegistryCall(nse("a", url="unix:///a.sock")))
    assert record.url == "unix:///a.sock"
    assert probe.registered == [("a", "tcp://me:1")]
    memory.records.put(nse("leftover", url="tcp://me:1"))
    memory.records.put(nse("remote", url="tcp://them:1"))
    assert {r.name: r.url for r in await find(chain)} == {"a": "unix:///a.sock", "remote": "tcp://them:1"}
    assert [r.name for r in await find(chain, NetworkServiceEndpoint(url="tcp://me:1"))] == ["a"]
    await chain.unregister(RegistryCall(nse("a")))
    assert probe.unregistered == [("a", "tcp://me:1")]
    assert [r.name for r in await find(chain)] == ["remote"]


async def test_an_endpoint_without_a_url_is_refused_and_a_failed_registration_is_forgotten():
    probe, memory = Probe(Unavailable("no registry")), Memory()
    chain = RegistryChain([RegistryBegin(), LocalBypass("tcp://me:1"), probe, memory])
    with pytest.raises(InvalidRequest, match="endpoint 'a' is not reachable"):
        await chain.register(RegistryCall(nse("a")))
    with pytest.raises(Unavailable):
        await chain.register(RegistryCall(nse("a", url="unix:///a.sock")))
    memory.records.put(nse("a", url="tcp://me:1"))
    assert await find(chain) == []


class Upstream(RegistryElement):
    """A registry that can be asked, watched and taken away."""

    def __init__(self):
        self.memory, self.asked, self.down = Memory(), 0, asyncio.Event()

    async def find(self, call, rest):
        if self.down.is_set():
            raise Unavailable("registry is down")
        if not call.watch:
            self.asked += 1
        batches = self.memory.find(call, rest)
        while True:
            step, gone = asyncio.ensure_future(anext(batches)), asyncio.ensure_future(self.down.wait())
            await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not step.done():
                step.cancel()
                raise Unavailable("registry went away")
            try:
                yield step.result()
            except StopAsyncIteration:
                return


async def test_a_manager_answers_from_its_watch_and_asks_on_a_miss():
    upstream = Upstream()
    upstream.memory.records.put(nse("a"))
    async with RegistryChain([Cache(ENDPOINTS), upstream]) as chain:
        await find(chain)
        await asyncio.sleep(1)
        asked = upstream.asked
        assert [r.name for r in await find(chain, nse("a"))] == ["a"]
        assert upstream.asked == asked
        upstream.memory.records._by_name["b"] = nse("b")  # registered a moment ago: the watch has not told yet
        assert [r.name for r in await find(chain, nse("b"))] == ["b"]
        assert upstream.asked == asked + 1
        upstream.memory.records.pop("a")
        await asyncio.sleep(1)
        assert await find(chain, nse("a")) == []


async def test_a_manager_whose_watch_broke_asks_until_it_watches_again():
    upstream = Upstream()
    upstream.memory.records.put(nse("a"))
    async with RegistryChain([Cache(ENDPOINTS), upstream]) as chain:
        await find(chain)
        await asyncio.sleep(1)
        upstream.down.set()
        await asyncio.sleep(1)
        with pytest.raises(Unavailable):
            await find(chain, nse("a"))
        upstream.down.clear()
        upstream.memory.records.pop("a")
        upstream.memory.records.put(nse("b"))
        assert [r.name for r in await find(chain)] == ["b"]
        await asyncio.sleep(20)
        asked = upstream.asked
        assert [r.name for r in await find(chain, nse("b"))] == ["b"]
        assert upstream.asked == asked


# --- clients


class Registry(Probe):
    """Gives an expiration time."""

    def __init__(self, *failures):
        super().__init__(*failures)
        self.watches = []

    async def register(self, call, rest):
        record = await super().register(call, rest)
        record.expiration_time = Timestamp.from_seconds(time.time() + 60)
        return record

    async def find(self, call, rest):
        gone = asyncio.get_running_loop().create_future()
        self.watches.append(gone)
        yield [Found(nse(call.record.name))]
        await gone
        raise Unavailable("the registry went away")


async def test_a_client_registers_again_at_two_thirds_and_keeps_trying():
    registry = Registry()
    chain = RegistryChain([RegistryBegin(), RegistryRefresh(), registry])
    await chain.register(RegistryCall(nse("a")))
    await asyncio.sleep(39)
    assert len(registry.registered) == 1
    registry.failures = [Unavailable("no"), Unavailable("no")]
    await asyncio.sleep(3)
    assert len(registry.registered) == 4
    await chain.unregister(RegistryCall(nse("a")))
    await asyncio.sleep(1000)
    assert len(registry.registered) == 4


class Impatient(Probe):
    """A manager that takes an endpoint out as soon as it could not be registered again in time, as upstream's does."""

    def __init__(self, lifetime):
        super().__init__()
        self.lifetime, self.taken_out, self._timer = lifetime, [], None

    async def register(self, call, rest):
        record = await super().register(call, rest)
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.lifetime - call.remaining(), lambda: self.taken_out.append(loop.time()))
        record.expiration_time = Timestamp.from_seconds(time.time() + self.lifetime)
        return record


@pytest.mark.parametrize(("lifetime", "lost"), [(60, 0), (20, 0), (10, 1)])
async def test_an_endpoint_with_short_tokens_stays_registered_at_a_manager_that_subtracts_the_call_s_time(
    lifetime, lost
):
    """A first call knows nothing of lifetimes: where they are shorter than its deadline it is out, and in again at once."""
    manager = Impatient(lifetime)
    chain = RegistryChain([RegistryBegin(), RegistryRetry(), RegistryRefresh(), manager])
    await chain.register(RegistryCall(nse("a")))
    await asyncio.sleep(20 * lifetime)
    assert len(manager.taken_out) <= lost
    assert len(manager.registered) <= 35
    await chain.aclose()


async def test_a_registration_is_made_anew_when_the_registry_comes_back():
    registry = Registry()
    chain = RegistryChain([RegistryBegin(), RegistryHeal(ENDPOINTS), registry])
    await chain.register(RegistryCall(nse("a")))
    await asyncio.sleep(10)
    assert len(registry.registered) == 1
    registry.failures = [Unavailable("still down"), Unavailable("still down")]
    registry.watches[0].set_result(None)
    await asyncio.sleep(10)
    assert len(registry.registered) == 4
    assert len(registry.watches) >= 2
    await chain.unregister(RegistryCall(nse("a")))
    await asyncio.sleep(100)
    assert len(registry.registered) == 4
    await chain.aclose()


async def test_a_call_is_tried_again_until_its_deadline_and_not_if_that_cannot_help():
    probe = Probe(*[Unavailable("down")] * 3)
    chain = RegistryChain([RegistryBegin(), RegistryRetry(), probe])
    await chain.register(RegistryCall(nse("a")))
    assert len(probe.registered) == 4
    probe.failures = [Unavailable("down")] * 1000
    begin = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await chain.register(RegistryCall(nse("b"), deadline=begin + 5))
    assert asyncio.get_running_loop().time() - begin <= 5
    probe.failures = [Refused("never")]
    with pytest.raises(Refused):
        await chain.register(RegistryCall(nse("c")))


@pytest.mark.parametrize("method", ["register", "find"])
async def test_a_last_try_that_the_deadline_cuts_short_tells_why_the_ones_before_failed(method):
    class Down(RegistryElement):
        tries = 0

        async def register(self, call, rest):
            self.fail()

        async def find(self, call, rest):
            self.fail()
            yield

        def fail(self):
            self.tries += 1
            if self.tries == 1:
                raise Unavailable("cannot reach the registry")
            raise TimedOut("the manager did not answer in time")

    down = Down()
    chain = RegistryChain([RegistryBegin(), RegistryRetry(), down])
    call = RegistryCall(nse("a"), deadline=asyncio.get_running_loop().time() + 0.35)
    with pytest.raises(Unavailable, match="cannot reach the registry"):
        if method == "find":
            [batch async for batch in chain.find(call)]
        else:
            await chain.register(call)
    assert down.tries == 2


async def test_what_a_client_chain_registered_is_taken_back_when_the_rest_fails():
    client, after = Probe(), Probe(Unavailable("no"))
    chain = RegistryChain([RegistryBegin(), RegistryConnect(RegistryChain([client])), after])
    with pytest.raises(Unavailable):
        await chain.register(RegistryCall(nse("a")))
    assert client.unregistered == [("a", "")]


async def test_an_endpoint_whose_first_registration_failed_sends_its_socket_again(tmp_path):
    """Its manager came later: the URL that was translated for the first try is not taken for its own."""
    (tmp_path / "s.sock").touch()
    url = f"unix://{tmp_path}/s.sock"
    tries = []

    class Manager(RegistryElement):
        async def register(self, call, rest):
            tries.append((call.record.url.split("/")[0], list(call.outgoing)))
            if len(tries) == 1:
                raise Unavailable("not there yet")
            return call.record

    chain = RegistryChain([RegistryRetry(), SendUrl(), Manager()])
    for _ in range(2):
        assert (await chain.register(RegistryCall(nse(url=url)))).url == url
    assert tries == [("inode:", [f"{tmp_path}/s.sock"])] * 3
