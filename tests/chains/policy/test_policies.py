"""Who may do what: forged, missing, expired and foreign tokens."""

import time

import jwt
import pytest

from nsm.chains.core import Peer
from nsm.chains.identity import Authority
from nsm.chains.policy import (
    CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    Path,
    PolicySet,
    next_token_signed,
    prev_token_signed,
    tokens_chained,
    tokens_expired,
    tokens_valid,
)
from nsm.chains.testing.identity import identity_of

AUTHORITY = Authority.create("test.mesh")
CLIENT, MANAGER, OTHER = (identity_of(AUTHORITY, name) for name in ("client", "manager", "other"))


def peer(identity):
    from cryptography.hazmat.primitives.serialization import Encoding

    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


def token(identity, audience=None):
    return identity.token(peer(audience) if audience else None).token


def signed(identity, **claims):
    return jwt.encode(
        {"sub": identity.spiffe_id, "exp": int(time.time()) + 3600, **claims}, identity.svid.key, algorithm="ES256"
    )


@pytest.fixture
def good():
    """Tokens of a request from client to manager: made for each test, since they last ten minutes."""
    return [token(CLIENT, MANAGER), token(MANAGER, CLIENT)]


def test_a_token_names_us_its_audience_and_its_end(good):
    """As others read it: the header too."""
    assert jwt.get_unverified_header(good[0]) == {"alg": "ES256", "typ": "JWT"}
    claims = jwt.decode(good[0], options={"verify_signature": False})
    assert set(claims) == {"sub", "aud", "exp"}
    assert claims["aud"] == [MANAGER.spiffe_id]
    assert isinstance(claims["exp"], int)


def test_a_token_is_made_once_for_each_audience_and_anew_after_a_rotation():
    identity = identity_of(AUTHORITY, "rotating")
    first = identity.token(peer(CLIENT)).token
    assert identity.token(peer(CLIENT)).token == first
    assert identity.token(peer(OTHER)).token != first
    identity.update(AUTHORITY.issue(identity.spiffe_id), identity.bundles)
    assert identity.token(peer(CLIENT)).token != first


def test_a_token_does_not_outlive_our_certificate_nor_the_peer_s():
    import datetime

    short = identity_of(AUTHORITY, "short")
    short.update(AUTHORITY.issue(short.spiffe_id, lifetime=datetime.timedelta(seconds=30)), short.bundles)
    assert short.token(peer(CLIENT)).expires.to_seconds() <= time.time() + 31
    assert CLIENT.token(peer(short)).expires.to_seconds() <= time.time() + 31


def test_good_tokens_pass_all_policies(good):
    assert PolicySet.select(SERVER_MASKS).refusal(Path(good, 1, peer(CLIENT))) is None
    assert PolicySet.select(CLIENT_MASKS).refusal(Path(good, 0, peer(MANAGER))) is None


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: "", "tokens_valid: segment 0 has no token"),
        (lambda: "not a token", "tokens_valid: the token of segment 0 is not a JWT"),
        (
            lambda: signed(CLIENT, aud=[MANAGER.spiffe_id], exp=int(time.time()) - 1),
            "tokens_expired: the token of segment 0",
        ),
        (lambda: token(CLIENT, OTHER), "tokens_chained: the token of segment 0 was not issued for"),
        (lambda: signed(CLIENT, aud=MANAGER.spiffe_id), "tokens_chained"),
        (
            lambda: signed(OTHER, sub=CLIENT.spiffe_id, aud=[MANAGER.spiffe_id]),
            "prev_token_signed: the caller's token is not signed",
        ),
    ],
)
def test_a_bad_token_is_refused_by_name_and_never_shown(good, bad, told):
    tokens = [bad(), good[1]]
    refusal = PolicySet.select(SERVER_MASKS).refusal(Path(tokens, 1, peer(CLIENT)))
    assert told in refusal
    assert not any(token and token in refusal for token in tokens)


def test_an_algorithm_that_the_caller_chose_does_not_count(good):
    """No algorithm at all, and the public key taken for a shared secret."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    claims = {"sub": CLIENT.spiffe_id, "aud": [MANAGER.spiffe_id], "exp": int(time.time()) + 60}
    unsigned = jwt.encode(claims, None, algorithm="none")
    public = CLIENT.svid.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    confused = by_hand(claims, public)
    for forged in (unsigned, confused, good[0][:-4] + "AAAA"):
        assert prev_token_signed(Path([forged, good[1]], 1, peer(CLIENT)))


def by_hand(claims, secret):
    """An HS256 token whose secret is somebody's public key: no library would make one."""
    import base64
    import hashlib
    import hmac
    import json

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    body = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (body + b"." + part(hmac.new(secret, body, hashlib.sha256).digest())).decode()


def test_a_first_segment_has_no_caller(good):
    assert "no segment of the caller" in prev_token_signed(Path([good[0]], 0, peer(CLIENT)))
    assert "no segment of the caller" in prev_token_signed(Path([], 0, peer(CLIENT)))


def test_who_answers_must_have_signed_the_next_token(good):
    assert next_token_signed(Path(good, 0, peer(MANAGER))) is None
    assert "not signed" in next_token_signed(Path(good, 0, peer(OTHER)))
    assert "no segment of the peer" in next_token_signed(Path(good[:1], 0, peer(MANAGER)))


def test_an_empty_path_has_nothing_to_object_to(good):
    assert tokens_valid(Path([], 0, None)) is None
    assert tokens_expired(Path([], 0, None)) is None
    assert tokens_chained(Path(good[:1], 0, None)) is None


def test_expired_tokens_do_not_keep_a_connection_from_being_closed(good):
    expired = [signed(CLIENT, aud=[MANAGER.spiffe_id], exp=int(time.time()) - 1), good[1]]
    assert PolicySet.select(SERVER_MASKS).refusal(Path(expired, 1, peer(CLIENT)), closing=True) is None


def test_masks_select_policies_by_the_names_of_their_files():
    chosen = PolicySet.select(["etc/nsm/opa/common/tokens_valid.rego"])
    assert chosen.refusal(Path([""], 0, None)) is not None
    assert chosen.refusal(Path([signed(CLIENT, exp=1)], 0, None)) is None
    assert PolicySet.select(REGISTRY_SERVER_MASKS).client_allowed
    assert not chosen.client_allowed
    assert PolicySet.select([]).refusal(Path([""], 0, None)) is None
    with pytest.raises(ValueError, match="selects neither a file nor any of"):
        PolicySet.select(["etc/nsm/opa/mine.rego"])
    with pytest.raises(ValueError, match="neither a regular expression nor a file"):
        PolicySet.select(["("])
