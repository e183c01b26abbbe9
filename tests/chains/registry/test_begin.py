"""Registrations that cannot be taken out further on."""

import asyncio

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import InvalidRequest, Refused, RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.local_bypass import LocalBypass
from nsm.chains.testing import Delay
from tests.chains.registry.records import nse


class Elsewhere(RegistryElement):
    """A registry that does not take anything out."""

    def __init__(self, error):
        self.error, self.asked = error, 0

    async def unregister(self, call, rest):
        self.asked += 1
        raise self.error


def chain_of(error):
    begin, local, elsewhere = RegistryBegin(), LocalBypass("tcp://me:1"), Elsewhere(error)
    return RegistryChain([begin, Expire(60), local, elsewhere]), begin, elsewhere


def endpoint():
    return RegistryCall(NetworkServiceEndpoint(name="a", url="unix:///a"))


async def test_an_endpoint_leaves_its_node_though_the_registry_does_not_answer():
    chain, begin, _ = chain_of(Unavailable("no registry"))
    await chain.register(endpoint())
    with pytest.raises(Unavailable):
        await chain.unregister(endpoint())
    assert len(begin) == 0


async def test_an_endpoint_expires_on_its_node_though_the_registry_does_not_answer():
    chain, begin, elsewhere = chain_of(Unavailable("no registry"))
    await chain.register(endpoint())
    await asyncio.sleep(100)
    assert (len(begin), elsewhere.asked) == (0, 1)


async def test_who_is_refused_changes_nothing():
    chain, begin, elsewhere = chain_of(Refused("not yours"))
    await chain.register(endpoint())
    with pytest.raises(Refused):
        await chain.unregister(endpoint())
    assert len(begin) == 1
    await asyncio.sleep(100)
    assert (len(begin), elsewhere.asked) == (0, 2), "the clock went on"


async def test_an_endpoint_that_registers_again_when_its_time_is_over_stays():
    """It came in time; what is behind took a while to answer."""
    begin, delay = RegistryBegin(), Delay()
    chain = RegistryChain([begin, Expire(60), delay])
    await chain.register(endpoint())
    await asyncio.sleep(55)
    delay.seconds = 10
    await chain.register(endpoint())
    delay.seconds = 0
    await asyncio.sleep(30)
    assert len(begin) == 1
    await asyncio.sleep(30)
    assert len(begin) == 0


async def test_a_record_without_a_name_is_refused():
    with pytest.raises(InvalidRequest, match="has no name"):
        await RegistryChain([RegistryBegin()]).register(RegistryCall(nse("")))
