"""Calls of the registries of other domains, under the names that they use themselves."""

import asyncio
from contextlib import aclosing

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    ENDPOINTS,
    SERVICES,
    TRANSPORT,
    Exhausted,
    Limits,
    NotFound,
    RegistryCall,
    RegistryChain,
    RegistryElement,
    Unavailable,
)
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.resolve_domain import PROXY, REGISTRY, ResolveDomain
from nsm.chains.testing import endpoint_record
from nsm.chains.testing.domains import Names
from tests.chains.registry.records import find, nse

THERE, PROXIED = "tcp://192.0.2.1:5002", "tcp://192.0.2.1:5004"


class At(RegistryElement):
    """Which registry is called; some are dead."""

    def __init__(self, *dead):
        self.dead, self.targets = dead, []

    def _check(self, call):
        self.targets.append(call.target)
        if call.target in self.dead:
            raise Unavailable(f"cannot reach {call.target}: nobody", element=TRANSPORT)

    async def register(self, call, rest):
        self._check(call)
        return await rest.register(call)

    async def unregister(self, call, rest):
        self._check(call)
        await rest.unregister(call)

    async def find(self, call, rest):
        self._check(call)
        async for batch in rest.find(call):
            yield batch


def names(registry=(THERE,), proxy=(PROXIED,)):
    made = Names()
    made.urls = {(REGISTRY, "two"): list(registry), (PROXY, "two"): list(proxy)}
    return made


async def test_an_endpoint_is_registered_under_plain_names_and_answered_under_ours():
    memory, at = Memory(), At()
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names()), at, memory])
    record = await chain.register(RegistryCall(nse("a@two", "shop@two", "gym", url="tcp://10.0.0.4:5004")))
    assert (record.name, record.network_service_names) == ("a@two", ["shop@two", "gym@two"])
    stored = memory.records.get("a")
    assert (stored.network_service_names, stored.url) == (["shop", "gym"], "tcp://10.0.0.4:5004")
    assert at.targets == [THERE]
    await chain.unregister(RegistryCall(nse("a@two", "shop@two")))
    assert len(memory.records) == 0


async def test_endpoints_are_found_under_the_url_of_their_domain_s_proxy_and_labels_under_their_names():
    memory = Memory()
    memory.records.put(endpoint_record("a", "shop", url="tcp://10.9.0.1:5001", colour="red"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names()), At(), memory])
    (found,) = await find(chain, nse("", "shop@two"))
    assert (found.name, found.network_service_names, found.url) == ("a@two", ["shop@two"], PROXIED)
    assert found.network_service_labels["shop@two"].labels == {"colour": "red"}


async def test_endpoints_of_a_domain_without_a_proxy_stay_where_they_are():
    memory = Memory()
    memory.records.put(nse("a", "shop", url="tcp://203.0.113.7:5004"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names(proxy=())), At(), memory])
    assert [each.url for each in await find(chain, nse("a@two", "shop"))] == ["tcp://203.0.113.7:5004"]


async def test_services_have_the_domain_in_their_names_and_need_no_proxy():
    memory, known = Memory(), names()
    chain = RegistryChain([ResolveDomain(SERVICES, known), At(), memory])
    await chain.register(RegistryCall(NetworkService(name="shop@two")))
    assert [each.name for each in await find(chain, NetworkService(name="shop@two"))] == ["shop@two"]
    assert (PROXY, "two") not in known.asked


async def test_the_next_registry_of_a_domain_is_tried_if_one_is_not_there():
    memory, at = Memory(), At("tcp://192.0.2.8:5002")
    memory.records.put(nse("a", "shop"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names(["tcp://192.0.2.8:5002", THERE])), at, memory])
    assert len(await find(chain, nse("", "shop@two"))) == 1
    await chain.register(RegistryCall(nse("b@two", "shop@two")))
    assert at.targets == ["tcp://192.0.2.8:5002", THERE] * 2


async def test_a_domain_whose_registries_are_all_dead_is_named():
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names()), At(THERE), Memory()])
    for work in (chain.register(RegistryCall(nse("a@two", "shop@two"))), find(chain, nse("", "shop@two"))):
        with pytest.raises(Unavailable, match="the registry of domain 'two' cannot be reached at tcp://192.0.2.1:5002"):
            await work


async def test_a_domain_without_a_record_is_named():
    chain = RegistryChain([ResolveDomain(ENDPOINTS, Names()), Memory()])
    with pytest.raises(NotFound, match="domain 'two' has no record"):
        await find(chain, nse("", "shop@two"))


async def test_a_record_that_brings_a_domain_of_its_own_is_left_out():
    memory = Memory()
    for record in (nse("a@evil", "shop"), nse("b", "shop", "gym@evil"), nse("c", "shop")):
        memory.records.put(record)
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names()), At(), memory])
    assert [each.name for each in await find(chain, nse("", "shop@two"))] == ["c@two"]


async def test_a_watch_reports_changes_and_that_the_domain_s_proxy_has_moved():
    memory, known = Memory(), names()
    memory.records.put(nse("a", "shop"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, known), At(), memory])
    known.lifetime = asyncio.get_running_loop().time() + 10
    query = NetworkServiceEndpoint(network_service_names=["shop@two"])
    async with aclosing(chain.find(RegistryCall(query, watch=True))) as batches:
        assert [(one.record.name, one.record.url) for one in await anext(batches)] == [("a@two", PROXIED)]
        memory.records.put(nse("b", "shop"))
        assert [one.record.name for one in await anext(batches)] == ["b@two"]
        memory.records.pop("b")
        assert [(one.record.name, one.deleted) for one in await anext(batches)] == [("b@two", True)]
        known.urls[PROXY, "two"], known.lifetime = ["tcp://192.0.2.2:5004"], float("inf")
        moved = await anext(batches)
        assert [(one.record.name, one.record.url) for one in moved] == [("a@two", "tcp://192.0.2.2:5004")]


async def test_a_domain_with_more_records_than_are_kept_ends_the_watch_and_a_single_find_passes():
    memory, query = Memory(), NetworkServiceEndpoint(network_service_names=["shop@two"])
    for number in range(4):
        memory.records.put(nse(f"nse-{number}", "shop"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names(), limits=Limits(cached_records=3)), At(), memory])
    assert len(await find(chain, nse("", "shop@two"))) == 4
    with pytest.raises(Exhausted, match=r"domain 'two' has more records .* \(NSM_LIMITS=cached_records:\.\.\)"):
        async with aclosing(chain.find(RegistryCall(query, watch=True))) as batches:
            while True:
                await anext(batches)


class Unsure(Names):
    """DNS that fails for a component."""

    failing = PROXY

    async def locate(self, component, domain):
        if component == self.failing:
            raise Unavailable(f"domain {domain!r} cannot be looked up: no answer")
        return await super().locate(component, domain)


async def test_a_proxy_that_cannot_be_looked_up_is_not_taken_for_a_domain_without_one():
    memory, known = Memory(), Unsure()
    known.urls = {(REGISTRY, "two"): [THERE], (PROXY, "two"): [PROXIED]}
    memory.records.put(nse("a", "shop", url="tcp://10.9.0.1:5001"))
    chain = RegistryChain([ResolveDomain(ENDPOINTS, known), At(), memory])
    with pytest.raises(Unavailable, match="domain 'two' cannot be looked up"):
        await find(chain, nse("", "shop@two"))
    known.failing, known.lifetime = "", asyncio.get_running_loop().time() + 10
    query = NetworkServiceEndpoint(network_service_names=["shop@two"])
    async with aclosing(chain.find(RegistryCall(query, watch=True))) as batches:
        assert [one.record.url for one in await anext(batches)] == [PROXIED]
        known.failing = PROXY
        await asyncio.sleep(60)
        memory.records.put(nse("b", "shop"))
        assert [(one.record.name, one.record.url) for one in await anext(batches)] == [("b@two", PROXIED)]


async def test_a_watch_ends_with_the_error_that_ended_it():
    memory = Memory()
    chain = RegistryChain([ResolveDomain(ENDPOINTS, names()), At(), memory])
    query = NetworkServiceEndpoint(network_service_names=["shop@two"])
    async with aclosing(chain.find(RegistryCall(query, watch=True))) as batches:
        await anext(batches)
        memory.records.end("the registry stops")
        with pytest.raises(Unavailable, match="the registry stops"):
            await anext(batches)
