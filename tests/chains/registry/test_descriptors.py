"""Sockets that go with a registration."""

from nsm.chains.core import RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.registry.retry import RegistryRetry
from tests.chains.registry.records import nse


async def test_an_endpoint_whose_first_registration_failed_sends_its_socket_again(tmp_path):
    """Its manager came later: the URL that was translated for the first try is not taken for its own."""
    (tmp_path / "s.sock").touch()
    url = f"unix://{tmp_path}/s.sock"
    tries = []

    class Manager(RegistryElement):
        async def register(self, call, rest):
            tries.append((call.record.url.split("/")[0], list(call.outgoing)))
            if len(tries) == 1:
                raise Unavailable("not there yet")
            return call.record

    chain = RegistryChain([RegistryRetry(), SendUrl(), Manager()])
    for _ in range(2):
        assert (await chain.register(RegistryCall(nse(url=url)))).url == url
    assert tries == [("inode:", [f"{tmp_path}/s.sock"])] * 3
