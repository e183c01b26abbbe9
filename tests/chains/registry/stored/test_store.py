"""To whom stored records belong."""

import asyncio
import time

import pytest

from nsm.apis.registry import Match, NetworkService
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import memory_registry
from nsm.chains.core import InvalidRequest, Limits, Refused, RegistryCall, RegistryChain
from nsm.chains.policy import NO_TRUST
from nsm.chains.registry.stored import EndpointLives, EndpointRules, MemoryBackend, Stored
from nsm.chains.testing.clock import wall_clock
from nsm.chains.testing.identity import identity_of
from tests.chains.registry.records import AUTHORITY, asks, find, nse


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


@pytest.fixture
async def store():
    backend = MemoryBackend()
    rules, lives = EndpointRules(owned=True, trust=NO_TRUST), EndpointLives(60)
    store = Stored(backend, rules, lives, limits=Limits())
    await store.open()
    with wall_clock():
        yield store
    await store.aclose()


async def test_a_stored_record_is_found_until_it_expires(store):
    chain = RegistryChain([store])
    await chain.register(RegistryCall(nse("a", expiration_time=Timestamp.from_seconds(time.time() + 60))))
    await chain.register(RegistryCall(nse("b")))
    await asyncio.sleep(55)
    assert [each.name for each in await find(chain)] == ["a", "b"]
    await asyncio.sleep(10)
    assert [each.name for each in await find(chain)] == ["b"]
    await chain.unregister(RegistryCall(nse("b")))
    assert await find(chain) == []


async def test_a_record_without_a_name_is_not_stored(store):
    with pytest.raises(InvalidRequest, match="the NetworkServiceEndpoint has no name"):
        await RegistryChain([store]).register(RegistryCall(nse("")))
    assert await find(RegistryChain([store])) == []
