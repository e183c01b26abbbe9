"""The names that other domains use for this domain's services."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Chain, Peer
from nsm.chains.elements.own_names import OwnNames
from nsm.chains.identity import Authority
from nsm.chains.testing import Check, Record, call, identity_of

OWN = identity_of(Authority.create("two"), "nsmgr-proxy")
THEIRS, OURS = "spiffe://one/nsmgr-proxy", "spiffe://two/forwarder"


def asked(peer, endpoint="a@two", **parameters):
    preference = Mechanism(cls="REMOTE", type="VXLAN", parameters=parameters)
    made = call("c", "shop@two", preferences=[preference], network_service_endpoint_name=endpoint)
    made.peer = Peer(peer, b"")
    return made


def names(connection):
    return connection.network_service, connection.network_service_endpoint_name


@pytest.mark.parametrize(
    "made",
    [asked(THEIRS), asked(OURS, orig_src_ip="10.0.0.1")],
    ids=["of another trust domain", "translated by a proxy"],
)
async def test_names_are_plain_inside_and_as_before_in_the_answer(made):
    seen, inside = Record(), []
    chain = Chain([OwnNames(OWN), Check(lambda seen: inside.append(names(seen.connection))), seen])
    assert names(await chain.request(made)) == ("shop@two", "a@two")
    assert inside == [("shop", "a")]
    await chain.close(asked(THEIRS))
    assert names(seen.closes[-1].connection) == ("shop", "a")


async def test_an_endpoint_that_was_chosen_here_gets_the_domain_in_the_answer():
    def choose(made):
        assert names(made.connection) == ("shop", "")
        made.connection.network_service_endpoint_name = "b"

    chain = Chain([OwnNames(OWN), Check(choose)])
    assert names(await chain.request(asked(THEIRS, ""))) == ("shop@two", "b@two")


async def test_names_in_a_call_from_our_own_domain_stay():
    seen = Record()
    await Chain([OwnNames(OWN), seen]).request(asked(OURS))
    assert names(seen.last.connection) == ("shop@two", "a@two")


async def test_names_of_a_call_that_has_a_target_stay():
    seen, made = Record(), asked(THEIRS)
    made.target = "tcp://10.0.0.1:5001"
    await Chain([OwnNames(OWN), seen]).request(made)
    assert names(seen.last.connection) == ("shop@two", "a@two")
