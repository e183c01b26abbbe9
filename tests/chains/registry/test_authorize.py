"""Who may register, what belongs to whom at a manager, and whose answer a client takes."""

import time

import jwt
import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.composed import memory_registry
from nsm.chains.core import Refused, RegistryCall, RegistryChain
from nsm.chains.core.registry import RegistryPath
from nsm.chains.registry.authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.update_path import RegistryUpdatePath
from nsm.chains.testing import Check, Record, identity_of
from tests.chains.registry.records import AUTHORITY, asks, find, nse, peer_of

OWN, ONE, OTHER = (identity_of(AUTHORITY, name) for name in ("registry", "one", "other"))


async def test_a_caller_without_a_token_is_refused():
    registry = memory_registry(OWN)
    call = asks(nse("a"), ONE, OWN)
    call.token = None
    with pytest.raises(Refused, match="tokens_valid: segment 0 has no token"):
        await registry.endpoints.register(call)
    assert await find(registry.endpoints) == []
    await registry.aclose()


def manager(**options):
    return RegistryChain([RegistryUpdatePath(OWN), RegistryBegin(), RegistryAuthorize(**options), Memory()])


async def test_at_a_manager_a_name_belongs_to_who_registered_it_until_it_goes():
    chain = manager()
    for _ in range(2):
        await chain.register(asks(nse("mine"), ONE, OWN))
    for attempt in (chain.register, chain.unregister):
        with pytest.raises(
            Refused, match=r"'mine' was registered by spiffe://test\.mesh/one; this call is of \S+/other"
        ):
            await attempt(asks(nse("mine"), OTHER, OWN))
    await chain.unregister(asks(nse("mine"), ONE, OWN))
    await chain.register(asks(nse("mine"), OTHER, OWN))
    assert len(await find(chain)) == 1


async def test_at_a_manager_a_service_that_nobody_provides_is_free_for_another_payload():
    endpoints = RegistryChain([Memory()])
    chain = manager(endpoints=endpoints)
    await chain.register(asks(NetworkService(name="svc", payload="IP"), ONE, OWN))
    await endpoints.register(RegistryCall(nse("e", "svc")))
    changed = NetworkService(name="svc", payload="ETHERNET")
    with pytest.raises(
        Refused, match="registers it with payload ETHERNET, but it has payload IP; an endpoint may provide"
    ):
        await chain.register(asks(changed, OTHER, OWN))
    await endpoints.unregister(RegistryCall(nse("e", "svc")))
    await chain.register(asks(changed, OTHER, OWN))


def answered_by(signer, who=OWN):
    """A client's chain, and its calls: `who` answers with a token that `signer` signed."""
    probe = Record()

    def answer(call):
        ends = int(time.time()) + 300
        claims = {"sub": who.spiffe_id, "aud": [ONE.spiffe_id], "exp": ends}
        call.path = RegistryPath(0, [ONE.token(peer_of(who)).token, jwt.encode(claims, signer.svid.key, "ES256")])
        call.server_peer = peer_of(who)

    return RegistryChain([RegistryBegin(), RegistryAuthorizeClient(), probe, Check(answer)]), probe


async def test_an_answer_that_its_registry_did_not_sign_is_refused_and_the_registration_taken_back():
    chain, probe = answered_by(OTHER)
    with pytest.raises(Refused, match="the answer has no sufficient privileges: next_token_signed"):
        await chain.register(RegistryCall(nse("a")))
    assert [each.name for each in probe.unregistered] == ["a"]


async def test_an_answer_that_its_registry_signed_is_taken():
    chain, probe = answered_by(OWN)
    await chain.register(RegistryCall(nse("a")))
    assert probe.unregistered == []
