"""What a service carries."""

from nsm.apis.registry import NetworkService
from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.set_payload import SetPayload


async def test_a_service_carries_ip_unless_it_says_otherwise():
    chain = RegistryChain([SetPayload()])
    assert (await chain.register(RegistryCall(NetworkService(name="a")))).payload == "IP"
    assert (await chain.register(RegistryCall(NetworkService(name="a", payload="ETHERNET")))).payload == "ETHERNET"
