"""The memif mechanism of the VPP forwarder: who names sockets, and where they are."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain, InvalidRequest
from nsm.chains.testing import Record, call
from nsm.forwarder_vpp.memif import MemifServer, OfferMemif


async def test_the_forwarder_names_the_client_s_socket_whatever_the_request_says():
    wanted = {"inodeURL": "file:///ns/a", "socketfile": "/run/vpp/somebody-elses.sock"}
    connection = await Chain([Begin(), MemifServer()]).request(
        call("c", mechanism=Mechanism(type="MEMIF", parameters=wanted))
    )
    assert connection.mechanism.parameters["socketfile"] == "@/run/nsm/memif/c/memif.socket"
    assert connection.mechanism.parameters["inodeURL"] == "file:///ns/a"


async def test_a_client_has_to_send_its_namespace():
    with pytest.raises(InvalidRequest, match="needs inodeURL"):
        await Chain([Begin(), MemifServer()]).request(call("c", mechanism=Mechanism(type="MEMIF")))


async def test_an_endpoint_is_offered_a_memif_and_names_namespace_and_socket_itself():
    seen = Record()
    await Chain([OfferMemif(), seen]).request(call())
    (offer,) = seen.requests[0].mechanism_preferences
    assert (offer.cls, offer.type, offer.parameters) == ("LOCAL", "MEMIF", {"inodeURL": ""})
