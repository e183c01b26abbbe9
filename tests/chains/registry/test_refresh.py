"""Registrations that are kept; time is virtual."""

import asyncio
import time

import pytest

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.refresh import RegistryRefresh
from nsm.chains.registry.retry import RegistryRetry
from tests.chains.registry.records import Probe, Registry, nse


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
