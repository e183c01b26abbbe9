"""Whose a connection is: by verified identities, as far back in a path as those on it may vouch."""

import time
from contextlib import suppress

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, PathSegment, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Begin, Call, Chain, CloseRefused, Element, Peer, Refused
from nsm.chains.elements.authorize import Authorize, AuthorizeClient
from nsm.chains.elements.update_path import UpdatePath
from nsm.chains.elements.update_token import UpdateToken
from nsm.chains.identity import Authority
from nsm.chains.model.segment_ids import make_id
from nsm.chains.policy import IdPatterns, Learned, Trust, latest_expiry
from nsm.chains.testing import Check, Record, identity_of
from nsm.chains.testing import call as a_call

AUTHORITY = Authority.create("test.mesh")
NAMES = ("client", "stranger", "nsmgr", "other-nsmgr", "forwarder", "endpoint")
WHO = {name: identity_of(AUTHORITY, name) for name in NAMES}
VOUCHING = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/*nsmgr", "spiffe://test.mesh/forwarder"]))


def peer(name):
    return Peer(WHO[name].spiffe_id, WHO[name].svid.leaf.public_bytes(Encoding.DER))


def token(name, audience, **claims):
    ends = int(time.time()) + 300
    claims = {"sub": WHO[name].spiffe_id, "aud": [WHO[audience].spiffe_id], "exp": ends, **claims}
    return jwt.encode(claims, WHO[name].svid.key, algorithm="ES256")


def server(name, trust, **options):
    return Chain([UpdatePath(name), Begin(), UpdateToken(WHO[name]), Authorize(trust=trust)], **options)


def asked(*names, to, connection_id="c", forged=()):
    """A call along a path of components, each of which signed its own token, but those that the last one forged."""
    segments = []
    for name, following in zip(names, (*names[1:], to), strict=True):
        signer = names[-1] if name in forged else name
        text = jwt.encode(
            {
                "sub": WHO[name].spiffe_id,
                "aud": [WHO[following].spiffe_id],
                "exp": int(time.time()) + 300,
            },
            WHO[signer].svid.key,
            algorithm="ES256",
        )
        segments.append(
            PathSegment(
                name=name, id=f"{connection_id}-{name}", token=text, expires=Timestamp.from_seconds(time.time() + 300)
            )
        )
    segments.append(PathSegment(name=to, id=connection_id))
    path = Path(index=len(names) - 1, path_segments=segments)
    connection = Connection(id=segments[-2].id, path=path)
    return Call(NetworkServiceRequest(connection=connection), peer=peer(names[-1]))


async def test_a_connection_is_its_client_s_whichever_manager_vouches_for_it():
    chain = server("endpoint", VOUCHING)
    first = asked("client", "nsmgr", "forwarder", to="endpoint")
    await chain.request(first)
    assert first.origin == WHO["client"].spiffe_id
    await chain.request(asked("client", "other-nsmgr", "forwarder", to="endpoint"))


@pytest.mark.parametrize("trust", [VOUCHING, Trust()], ids=["vouching", "default"])
@pytest.mark.parametrize(
    "names", [("stranger",), ("client", "stranger"), ("client", "stranger", "forwarder"), ("stranger", "forwarder")]
)
async def test_who_names_the_victim_without_being_entitled_gets_nothing_of_its_connection(trust, names):
    chain = server("endpoint", trust)
    await chain.request(asked("client", "forwarder", to="endpoint"))
    with pytest.raises(Refused, match=r"belongs to spiffe://test.mesh/\w+"):
        await chain.request(asked(*names, to="endpoint", forged=("client",)))
    with pytest.raises(CloseRefused):
        await chain.close(asked(*names, to="endpoint", forged=("client",)))
    await chain.request(asked("client", "forwarder", to="endpoint"))


async def test_an_id_that_became_free_while_a_stranger_waited_for_it_is_not_the_stranger_s():
    own_id = make_id((WHO["client"].spiffe_id,))
    chain = server("nsmgr", VOUCHING)
    with pytest.raises(Refused, match="was made for another client"):
        await chain.request(asked("stranger", to="nsmgr", connection_id=own_id))
    await chain.request(asked("client", to="nsmgr", connection_id=own_id))


async def test_who_may_not_close_a_connection_may_not_reselect_it():
    chain = server("nsmgr", VOUCHING)
    await chain.request(asked("client", to="nsmgr"))
    again = asked("stranger", to="nsmgr")
    again.connection.state = State.RESELECT_REQUESTED
    with pytest.raises(Refused, match="belongs to"):
        await chain.request(again)
    with pytest.raises(Refused, match="belongs to"):
        await chain.request(asked("stranger", to="nsmgr"))


async def test_a_refusal_of_who_may_not_vouch_names_the_variable():
    chain = server("endpoint", Trust())
    await chain.request(asked("client", "nsmgr", to="endpoint"))
    with pytest.raises(Refused, match=r"other-nsmgr, which may not vouch for .*/client \(NSM_INTERMEDIARIES\)"):
        await chain.request(asked("client", "other-nsmgr", to="endpoint"))


@pytest.mark.parametrize("subject", ["client", "nsmgr"])
async def test_a_token_that_names_another_than_the_peer_is_refused_though_the_peer_signed_it(subject):
    chain = server("nsmgr", VOUCHING)
    call = asked("stranger", to="nsmgr", connection_id="d")
    call.connection.path.path_segments[0].token = token("stranger", "nsmgr", sub=WHO[subject].spiffe_id)
    with pytest.raises(Refused, match=r"caller_is_named: the token of spiffe://test.mesh/stranger names another"):
        await chain.request(call)
    with pytest.raises(CloseRefused, match="caller_is_named"):
        await chain.close(await established(chain, "stranger", subject))


async def established(chain, name, subject):
    await chain.request(asked(name, to="nsmgr"))
    closing = asked(name, to="nsmgr")
    closing.connection.path.path_segments[0].token = token(name, "nsmgr", sub=WHO[subject].spiffe_id)
    return closing


async def test_an_endpoint_that_nobody_configured_learns_from_its_manager_who_may_vouch():
    """A forwarder is replaced by one with another identity: the client keeps its connection at the endpoint."""
    forwarders, looks = [WHO["forwarder"].spiffe_id, WHO["nsmgr"].spiffe_id], []

    async def ask():
        looks.append(1)
        return forwarders

    chain = server("endpoint", Trust(learned=Learned(ask)))
    await chain.request(asked("client", "nsmgr", "forwarder", to="endpoint"))
    await chain.request(asked("client", "nsmgr", "forwarder", to="endpoint"))
    assert len(looks) == 1
    with pytest.raises(Refused):
        await chain.request(asked("client", "stranger", to="endpoint", forged=("client",)))


async def test_callers_who_may_not_vouch_do_not_make_an_endpoint_ask_all_the_time():
    looks = []

    async def ask():
        looks.append(1)
        return []

    chain = server("endpoint", Trust(learned=Learned(ask)))
    for number in range(20):
        with suppress(Refused):
            await chain.request(
                asked("client", "stranger", to="endpoint", connection_id=f"c{number}", forged=("client",))
            )
    assert len(looks) == 1


@pytest.mark.parametrize("exp", [float("inf"), float("nan"), 10**400, 253402300799, -1, "soon", True, None, [1]])
async def test_a_token_whose_end_is_no_time_is_refused(exp):
    chain = server("nsmgr", VOUCHING)
    call = asked("client", to="nsmgr")
    call.connection.path.path_segments[0].token = token("client", "nsmgr", exp=exp) if exp is not None else "x.y.z"
    with pytest.raises(Refused, match="tokens_valid"):
        await chain.request(call)


async def test_a_token_of_the_future_is_refused():
    call = asked("client", to="nsmgr")
    call.connection.path.path_segments[0].token = token("client", "nsmgr", nbf=int(time.time()) + 3600)
    with pytest.raises(Refused, match="not valid yet"):
        await server("nsmgr", VOUCHING).request(call)


@pytest.mark.parametrize("by", ["metadata", "path"])
async def test_nothing_makes_a_connection_last_longer_than_its_token_its_certificate_and_our_own_maximum(by):
    from nsm.chains.core import ClientToken

    call = asked("client", to="nsmgr")
    far, text = Timestamp(seconds=253402300799), token("client", "nsmgr", exp=int(time.time()) + 86400 * 365)
    if by == "metadata":
        call.token = ClientToken(text, far)
    else:
        call.connection.path.path_segments[0].token = text
        call.connection.path.path_segments[0].expires = far
    connection = await server("nsmgr", VOUCHING).request(call)
    assert connection.path.path_segments[0].expires.to_seconds() <= time.time() + WHO["nsmgr"].token_lifetime


def test_what_a_token_gives_ends_with_the_certificate():
    import datetime

    short = AUTHORITY.issue("spiffe://test.mesh/short", lifetime=datetime.timedelta(seconds=30))
    peer = Peer(short.spiffe_id, short.leaf.public_bytes(Encoding.DER))
    assert latest_expiry(token("client", "nsmgr"), peer, 600) <= time.time() + 31


def answered(*, signer):
    """A client's chain whose manager answers with a token that `signer` signed in the manager's name."""
    probe = Record()

    def answer(call):
        ends = int(time.time()) + 300
        claims = {"sub": WHO["nsmgr"].spiffe_id, "aud": [WHO["client"].spiffe_id], "exp": ends}
        signed = jwt.encode(claims, WHO[signer].svid.key, algorithm="ES256")
        segments = [PathSegment(name="client", token=token("client", "nsmgr")), PathSegment(name="nsmgr", token=signed)]
        call.connection.path, call.server_peer = Path(path_segments=segments), peer("nsmgr")

    return Chain([Begin(), AuthorizeClient(), probe, Check(answer)]), probe


async def test_an_answer_that_its_component_did_not_sign_is_refused_and_taken_back():
    chain, probe = answered(signer="stranger")
    with pytest.raises(Refused, match="the answer has no sufficient privileges: next_token_signed"):
        await chain.request(a_call())
    assert len(probe.closes) == 1
    chain, probe = answered(signer="nsmgr")
    await chain.request(a_call())
    assert probe.closes == []


EXPIRED = {"exp": int(time.time()) - 60}


@pytest.mark.parametrize(
    ("keeps", "changed", "answers", "passes"),
    [
        (True, False, {}, True),
        (False, False, {}, False),
        (True, True, {}, False),
        (True, False, EXPIRED, False),
    ],
    ids=["of an orphan", "of another request", "with another token", "with an expired token of its own"],
)
async def test_an_answer_for_an_orphan_has_the_expired_tokens_that_were_sent_and_no_others(
    keeps, changed, answers, passes
):
    """The manager is away, so its client's token and its own have ended: the forwarder keeps the endpoint's part."""
    sent = [token("client", "nsmgr", **EXPIRED), token("nsmgr", "forwarder", **EXPIRED), token("forwarder", "endpoint")]
    names = ["client", "nsmgr", "forwarder", "endpoint"]

    def path(*tokens):
        return Path(index=2, path_segments=[PathSegment(name=n, token=t) for n, t in zip(names, tokens, strict=False)])

    def answer(call):
        first = token("client", "nsmgr", exp=int(time.time()) - 61) if changed else sent[0]
        call.connection.path = path(first, *sent[1:], token("endpoint", "forwarder", **answers))
        call.server_peer = peer("endpoint")

    class Answer(Element):
        async def request(self, call, rest):
            connection = codec.clone(await rest.request(call))
            other = Call(NetworkServiceRequest(connection=connection))
            answer(other)
            call.server_peer = other.server_peer
            return other.connection

    asked = a_call(path=path(*sent))
    asked.keeps_orphan = keeps
    chain = Chain([Begin(), AuthorizeClient(), Answer()])
    if passes:
        await chain.request(asked)
    else:
        with pytest.raises(Refused, match="expired"):
            await chain.request(asked)
