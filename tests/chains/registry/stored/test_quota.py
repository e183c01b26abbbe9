"""Whose a stored registration is counted as."""

import time

import jwt
import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import RegistrySettings, memory_registry
from nsm.chains.core import Exhausted, Limits, RegistryCall
from nsm.chains.core.registry import RegistryPath
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from tests.chains.registry.records import asks

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
