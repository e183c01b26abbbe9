"""Where a client finds its registry."""

from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.memory import Memory
from nsm.chains.testing import Record
from tests.chains.registry.records import nse


async def test_every_call_goes_to_the_registry_of_the_client():
    probe = Record()
    chain = RegistryChain([RegistryClientUrl("tcp://registry:1"), probe, Memory()])
    targets = []
    await chain.register(RegistryCall(nse("a")))
    targets.append(probe.last.target)
    async for _ in chain.find(RegistryCall(nse("a"))):
        targets.append(probe.last.target)
    await chain.unregister(RegistryCall(nse("a")))
    assert [*targets, probe.last.target] == ["tcp://registry:1"] * 3
