"""Serves components of one's own trust domain only."""

import pytest

from nsm.chains.core import Peer, Refused, RegistryCall, RegistryChain
from nsm.chains.identity import Authority
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.own_domain_only import OwnDomainOnly
from nsm.chains.testing import identity_of
from tests.chains.registry.records import find, nse


async def test_a_caller_of_another_trust_domain_is_refused_whatever_it_asks():
    chain = RegistryChain([OwnDomainOnly(identity_of(Authority.create("own"), "nsmgr-proxy")), Memory()])
    theirs = Peer("spiffe://other/registry", b"")
    with pytest.raises(Refused, match="spiffe://other/registry is not of 'own'"):
        await chain.register(RegistryCall(nse("a"), peer=theirs))
    with pytest.raises(Refused):
        await chain.unregister(RegistryCall(nse("a"), peer=theirs))
    with pytest.raises(Refused):
        await find(chain, peer=theirs)
    await chain.register(RegistryCall(nse("a"), peer=Peer("spiffe://own/registry", b"")))
    assert [each.name for each in await find(chain)] == ["a"]
