"""Passes records and queries of other domains on."""

import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.core import InvalidRequest, NotFound, RegistryCall, RegistryChain
from nsm.chains.registry.interdomain import Interdomain
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import find, nse


async def test_records_with_a_domain_go_to_the_proxy_and_all_others_stay():
    beyond, own = Memory(), Memory()
    chain = RegistryChain([Interdomain(RegistryChain([beyond])), own])
    for record in (nse("a", "shop"), nse("b@two", "shop@two"), nse("c", "shop@two")):
        await chain.register(RegistryCall(record))
    assert len(own.records) == 1
    assert len(beyond.records) == 2
    assert [each.name for each in await find(chain)] == ["a"]
    assert [each.name for each in await find(chain, nse("", "shop@two"))] == ["b@two", "c"]
    await chain.unregister(RegistryCall(nse("c", "shop@two")))
    assert len(beyond.records) == 1


async def test_without_a_proxy_another_domain_is_not_known():
    chain = RegistryChain([Interdomain(None), Memory()])
    with pytest.raises(NotFound, match="domain 'two' is not known here: this registry has no proxy"):
        await find(chain, NetworkService(name="shop@two"))
    await chain.register(RegistryCall(NetworkService(name="shop@two")))  # any name will do
    assert len(await find(chain, NetworkService(name="shop@two"))) == 1


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (nse("a", "shop@two@three"), "'shop@two@three' has more than one @"),
        (nse("a@one", "shop@two"), "the names are of several domains: 'a@one', 'shop@two'"),
        (nse("a", "shop@"), "names no domain"),
        (nse("a", "shop@two..three"), "names no domain"),
        (nse("a", "shop@tcp://host:5002"), "names no domain"),
    ],
)
async def test_names_that_are_of_no_domain_or_of_several_are_named(record, words):
    chain = RegistryChain([Interdomain(RegistryChain([Memory()])), Memory()])
    with pytest.raises(InvalidRequest, match=words):
        await chain.register(RegistryCall(record))


async def test_a_domain_may_be_the_url_of_a_registry():
    beyond = Memory()
    chain = RegistryChain([Interdomain(RegistryChain([beyond]))])
    await chain.register(RegistryCall(nse("a@tcp://192.0.2.1:5002")))
    await chain.register(RegistryCall(nse("b@tcp://[2001:db8::1]:5002")))
    assert len(beyond.records) == 2
