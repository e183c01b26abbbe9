"""Endpoints of a manager's own node."""

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import InvalidRequest, RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.local_bypass import LocalBypass
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import Probe, find, nse


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
