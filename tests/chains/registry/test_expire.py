"""How long an endpoint stays that does not register again; time is virtual."""

import asyncio
import time

import pytest

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.expire import Expire
from nsm.chains.registry.memory import Memory
from tests.chains.registry.records import Probe, find, nse


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


async def test_a_registration_that_is_only_forgotten_stays_where_its_record_is_stored():
    begin, memory = RegistryBegin(), Memory()
    chain = RegistryChain([begin, Expire(60, forgets=True), memory])
    await chain.register(RegistryCall(nse("a")))
    await asyncio.sleep(70)
    assert (len(begin), len(await find(chain))) == (0, 1)
    await chain.register(RegistryCall(nse("a")))
    await chain.unregister(RegistryCall(nse("a")))
    assert await find(chain) == []
