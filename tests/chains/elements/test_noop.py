"""A forwarder that offers an endpoint that nothing is made there."""

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain
from nsm.chains.elements.noop import OfferNoop


async def test_nothing_is_offered_on_this_node_and_on_others():
    request = NetworkServiceRequest(connection=Connection(), mechanism_preferences=[Mechanism(type="X")])
    await Chain([OfferNoop()]).request(Call(request))
    assert [(each.cls, each.type) for each in request.mechanism_preferences] == [
        ("", "X"),
        ("LOCAL", "NOOP"),
        ("REMOTE", "NOOP"),
    ]
