"""What components of other trust domains may find and register."""

import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.core import Peer, Refused, RegistryCall, RegistryChain
from nsm.chains.identity import Authority
from nsm.chains.policy import Admitted
from nsm.chains.registry.limit_domains import LimitDomains
from nsm.chains.registry.memory import Memory
from nsm.chains.testing import identity_of
from tests.chains.registry.records import find, nse

OWN = identity_of(Authority.create("own"), "registry")
THEIRS, OURS = Peer("spiffe://other/registry-proxy", b""), Peer("spiffe://own/nsmgr", b"")


async def test_others_find_and_register_admitted_services_only():
    chain = RegistryChain([LimitDomains(Admitted.parse("other=shop"), OWN), Memory()])
    for record in (nse("one", "shop"), nse("two", "bank"), nse("three", "bank", "shop")):
        await chain.register(RegistryCall(record, peer=OURS))
    assert [each.name for each in await find(chain, peer=THEIRS)] == ["one", "three"]
    assert len(await find(chain, peer=OURS)) == 3
    with pytest.raises(Refused, match="may not use 'bank' of this domain; NSM_ADMITTED_DOMAINS"):
        await find(chain, nse("", "bank"), peer=THEIRS)
    with pytest.raises(Refused, match="may not use 'bank'"):
        await chain.register(RegistryCall(nse("x", "shop", "bank"), peer=THEIRS))
    await chain.register(RegistryCall(nse("x", "shop"), peer=THEIRS))
    await chain.unregister(RegistryCall(nse("x", "shop"), peer=THEIRS))


async def test_others_do_not_define_services_that_are_not_admitted():
    chain = RegistryChain([LimitDomains(Admitted.parse("other=shop"), OWN), Memory()])
    await chain.register(RegistryCall(NetworkService(name="shop"), peer=THEIRS))
    with pytest.raises(Refused):
        await chain.register(RegistryCall(NetworkService(name="bank"), peer=THEIRS))


async def test_others_do_not_reach_third_domains_through_ours():
    chain = RegistryChain([LimitDomains(Admitted.parse("*=*"), OWN), Memory()])
    with pytest.raises(Refused, match="finds other domains through its own proxy"):
        await find(chain, nse("", "shop@third"), peer=THEIRS)
