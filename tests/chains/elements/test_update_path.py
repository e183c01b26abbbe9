"""The path's element with answers that no well-behaved peer gives, and whom a segment's id is made for."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.connection import Connection, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Peer
from nsm.chains.elements.update_path import Owned, UpdatePath
from nsm.chains.identity import Authority
from nsm.chains.model.segment_ids import is_made_for, make_id
from nsm.chains.testing.identity import identity_of

AUTHORITY = Authority.create("test.mesh")


async def test_an_answer_without_a_path_is_passed_back_as_it_came():
    class Forgetful:
        async def request(self, call):
            return Connection(id="theirs")

    chain = Chain([UpdatePath("nsc")], Forgetful())
    assert (await chain.request(Call(NetworkServiceRequest()))).id == "theirs"


def peer(name):
    identity = identity_of(AUTHORITY, name)
    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


def owner(name):
    return (f"spiffe://test.mesh/{name}",)


CLIENT, STRANGER = peer("client"), peer("stranger")


def asked(peer, *behind, own="c"):
    path = Path(path_segments=[PathSegment(name="nsc", id=own), *behind])
    return Call(NetworkServiceRequest(connection=Connection(id=own, path=path)), peer=peer)


def server():
    begin = Begin()
    return Chain([UpdatePath("nsmgr", owned=Owned(standing=begin)), begin]), begin


async def own_id(chain, call):
    return (await chain.request(call)).path.path_segments[1].id


async def test_an_id_is_made_for_who_asks():
    chain, begin = server()
    given = await own_id(chain, asked(CLIENT))
    assert is_made_for(owner("client"), given)
    assert given in begin


async def test_what_was_asked_for_with_a_proposal_can_be_closed_by_it():
    """The answer was lost: the client knows of no id but the one that it proposed."""
    chain, begin = server()
    given = await own_id(chain, asked(CLIENT, PathSegment(id="proposed")))
    await chain.close(asked(STRANGER, PathSegment(id="proposed")))
    assert given in begin
    await chain.close(asked(CLIENT, PathSegment(id="proposed")))
    assert len(begin) == 0


async def test_a_component_that_was_restarted_gives_an_id_to_nobody_but_whom_it_was_made_for():
    chain, _ = server()
    given = await own_id(chain, asked(CLIENT))
    chain, begin = server()
    assert await own_id(chain, asked(STRANGER, PathSegment(name="nsmgr", id=given))) != given
    assert await own_id(chain, asked(CLIENT, PathSegment(name="nsmgr", id=given))) == given
    assert len(begin) == 2


@pytest.mark.parametrize("mine", ["nsmgr", "nsc"])
async def test_who_calls_itself_like_the_component_gets_no_other_ids(mine):
    chain, begin = server()
    given = make_id(owner("client"))
    call = asked(STRANGER, own=given)
    call.connection.path.path_segments[0].name = mine
    await chain.request(call)
    assert given not in begin


def test_what_is_no_id_of_ours_is_made_for_nobody():
    real = make_id(owner("client"))
    for text in ("", "c", "8" * 36, real.upper(), real[:-1], f"{real}0", real.replace("-8", "-4"), "٣" * 36):
        assert not is_made_for(owner("client"), text)
    assert not is_made_for((*owner("client"), "x"), real)
    assert is_made_for(owner("client"), real)
    assert make_id(owner("client"), "p") == make_id(owner("client"), "p") != make_id(owner("stranger"), "p")
