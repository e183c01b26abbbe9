"""Whose a stored registration is counted as."""

import time

import jwt
import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import RegistrySettings, memory_registry
from nsm.chains.core import Exhausted, Limits, RegistryCall, RegistryChain
from nsm.chains.core.registry import RegistryPath
from nsm.chains.identity import Authority
from nsm.chains.policy import NO_TRUST
from nsm.chains.registry.memory import Records
from nsm.chains.registry.quota import Quotas
from nsm.chains.registry.stored import StoredQuota
from nsm.chains.testing.identity import identity_of
from tests.chains.registry.records import asks, peer_of

AUTHORITY = Authority.create("test.mesh")
OWN, VICTIM, MALLORY = (identity_of(AUTHORITY, name) for name in ("registry", "victim", "mallory"))
FEW = Limits(registrations=2, peer_registrations=2)


def nse(name):
    return NetworkServiceEndpoint(name=name, network_service_names=["svc"])


def on_behalf_of(claimed, record):
    """Mallory's call, with a token before its own that says, signed by itself, that the path began at `claimed`."""
    claims = {"sub": claimed.spiffe_id, "aud": [MALLORY.spiffe_id], "exp": int(time.time()) + 600}
    forged = jwt.encode(claims, MALLORY.svid.key, algorithm="ES256")
    call = asks(record, MALLORY, OWN)
    return RegistryCall(call.record, peer=call.peer, token=call.token, path=RegistryPath(1, [forged, ""]))


@pytest.fixture
async def registry():
    registry = memory_registry(OWN, RegistrySettings(limits=FEW))
    yield registry
    await registry.aclose()


async def test_who_says_that_it_registers_for_another_one_has_its_own_quota_and_leaves_the_other_s(registry):
    for number in range(2):
        await registry.endpoints.register(on_behalf_of(VICTIM, nse(f"mallory-{number}")))
    with pytest.raises(Exhausted, match=r"mallory has already registered 2 records"):
        await registry.endpoints.register(on_behalf_of(VICTIM, nse("one-more")))
    for number in range(2):
        await registry.endpoints.register(asks(nse(f"victim-{number}"), VICTIM, OWN))


async def test_what_ends_in_the_store_is_given_back_to_whose_it_was():
    records, quotas = Records(), Quotas(FEW)
    chain = RegistryChain([StoredQuota(quotas, records, NO_TRUST)])
    for number in range(2):
        records.put(NetworkServiceEndpoint(name=f"e{number}", path_ids=[VICTIM.spiffe_id]))
    call = RegistryCall(nse("one-more"), peer=peer_of(VICTIM))
    with pytest.raises(Exhausted, match="victim has already registered 2 records"):
        await chain.register(call)
    records.pop("e0")
    await chain.register(call)
    records.pop("e1")
    assert len(quotas) == 0
