"""How much one client has registered at a manager."""

import pytest

from nsm.chains.core import Exhausted, Limits, Peer, RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.quota import Quota, Quotas
from nsm.chains.testing import Fail
from tests.chains.registry.records import nse


def chain_of(*behind, **limits):
    quotas = Quotas(Limits(**limits))
    return RegistryChain([RegistryBegin(), Quota(quotas), *behind]), quotas


def of(name, record, origin=None):
    return RegistryCall(
        record, peer=Peer(f"spiffe://test.mesh/{name}", b""), origin=f"spiffe://test.mesh/{origin or name}"
    )


async def test_a_client_that_registers_too_much_is_refused_until_something_ends_and_others_are_not():
    chain, quotas = chain_of(registrations=2)
    for _ in range(3):
        for name in ("a", "b"):
            await chain.register(of("client", nse(name)))
    with pytest.raises(Exhausted, match=r"test\.mesh/client has already registered 2 records of \d+ bytes"):
        await chain.register(of("client", nse("c")))
    await chain.register(of("other", nse("d")))
    await chain.unregister(of("client", nse("a")))
    await chain.register(of("client", nse("c")))
    for name, owner in (("b", "client"), ("c", "client"), ("d", "other")):
        await chain.unregister(of(owner, nse(name)))
    assert len(quotas) == 0


async def test_a_record_that_grows_counts_as_it_is_now():
    chain, _ = chain_of(registered_bytes=200)
    await chain.register(of("client", nse("a", *"x" * 50)))
    await chain.register(of("client", nse("a")))
    await chain.register(of("client", nse("b", *"x" * 50)))
    with pytest.raises(Exhausted, match="registered_bytes is 200"):
        await chain.register(of("client", nse("a", *"x" * 50)))


async def test_a_registration_that_fails_counts_nothing():
    fail = Fail(Unavailable("no registry"))
    chain, quotas = chain_of(fail, registrations=1)
    with pytest.raises(Unavailable):
        await chain.register(of("client", nse("a")))
    assert len(quotas) == 0
    await chain.register(of("client", nse("a")))


async def test_it_counts_for_who_is_at_the_beginning_of_the_path():
    chain, _ = chain_of(registrations=1)
    await chain.register(of("nsmgr", nse("a"), "client"))
    await chain.register(of("nsmgr", nse("b"), "other"))
    with pytest.raises(Exhausted, match="test.mesh/client"):
        await chain.register(of("nsmgr", nse("c"), "client"))
