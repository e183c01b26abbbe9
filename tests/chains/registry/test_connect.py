"""A registry's server and the client chain that goes on from it."""

import pytest

from nsm.chains.core import RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.connect import RegistryConnect
from tests.chains.registry.records import Probe, nse


async def test_what_a_client_chain_registered_is_taken_back_when_the_rest_fails():
    client, after = Probe(), Probe(Unavailable("no"))
    chain = RegistryChain([RegistryBegin(), RegistryConnect(RegistryChain([client])), after])
    with pytest.raises(Unavailable):
        await chain.register(RegistryCall(nse("a")))
    assert client.unregistered == [("a", "")]
