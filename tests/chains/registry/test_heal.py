"""Registrations at a registry that went away; time is virtual."""

import asyncio

from nsm.chains.core import ENDPOINTS, RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.heal import RegistryHeal
from tests.chains.registry.records import Registry, nse


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
