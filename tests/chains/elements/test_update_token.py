"""Tokens of a path: the caller's, and our own for it."""

import time
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Chain, ClientToken, Peer
from nsm.chains.elements.update_token import UpdateToken
from nsm.chains.identity import Authority
from nsm.chains.testing import Check, Record, call, identity_of
from tests.chains.elements.paths import path

AUTHORITY = Authority.create("test.mesh")
CLIENT = identity_of(AUTHORITY, "client")


@pytest.fixture
def own():
    return identity_of(AUTHORITY, "nsmgr")


def peer(seen=None):
    return Peer(CLIENT.spiffe_id, CLIENT.svid.leaf.public_bytes(Encoding.DER), seen)


def asked(who, lifetime=60):
    """A call of the client, by a token that lives so many seconds, whatever it says of that."""
    token = jwt.encode({"sub": CLIENT.spiffe_id, "exp": int(time.time()) + lifetime}, CLIENT.svid.key, "ES256")
    request = call(path=path("client", "nsmgr", "forwarder", index=1))
    request.peer, request.token = who, ClientToken(token, Timestamp.from_seconds(time.time() + 10_000))
    return request


def claims(segment):
    return jwt.decode(segment.token, options={"verify_signature": False})


async def test_each_segment_gets_the_token_of_its_component_made_for_the_other(own):
    request = asked(peer())
    first, second, _ = (await Chain([UpdateToken(own)]).request(request)).path.path_segments
    assert first.token == request.token.token
    assert (claims(second)["sub"], claims(second)["aud"]) == (own.spiffe_id, [CLIENT.spiffe_id])


async def test_a_caller_s_time_is_what_its_token_says_and_no_longer(own):
    first, *_ = (await Chain([UpdateToken(own)]).request(asked(peer()))).path.path_segments
    assert first.expires.to_seconds() == pytest.approx(time.time() + 60, abs=2)


async def test_a_close_carries_both_tokens_too(own):
    probe, request = Record(), asked(peer())
    await Chain([UpdateToken(own), probe]).close(request)
    first, second, _ = probe.closes[0].connection.path.path_segments
    assert first.token == request.token.token
    assert claims(second)["sub"] == own.spiffe_id


async def test_a_caller_that_knows_the_former_identity_gets_a_token_of_that_for_who_comes_next(own):
    former = own.svid
    own.update(AUTHORITY.issue(own.spiffe_id), own.bundles)

    def answer(connection):
        forwarder = {"sub": "spiffe://test.mesh/forwarder", "exp": int(time.time()) + 60}
        connection.path.path_segments[2].token = jwt.encode(forwarder, "k" * 32)

    who = replace(peer(), seen=former)
    _, second, _ = (await Chain([UpdateToken(own), Check(after=answer)]).request(asked(who))).path.path_segments
    audience = "spiffe://test.mesh/forwarder"
    jwt.decode(second.token, former.leaf.public_key(), algorithms=["ES256"], audience=audience)
