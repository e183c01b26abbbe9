"""Calls of a registry that does not answer at once; time is virtual."""

import asyncio

import pytest

from nsm.chains.core import Refused, RegistryCall, RegistryChain, RegistryElement, TimedOut, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.retry import RegistryRetry
from tests.chains.registry.records import Probe, nse


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
