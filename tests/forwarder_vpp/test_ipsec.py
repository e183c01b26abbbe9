"""The IPSEC mechanism: certificates and parameters that both ends exchange."""

import ipaddress

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.forwarding.sides import CLIENT_SIDE, ENDPOINT_SIDE
from nsm.chains.testing import FakeDataplane
from nsm.forwarder_vpp.certificates import NodeKey
from nsm.forwarder_vpp.ipsec import IpsecEnd, IpsecServer, OfferIpsec

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))


class Answer(Element):
    """Chooses the offer, and adds what a server says."""

    def __init__(self, **parameters):
        self.parameters, self.offer, self.sides = parameters, None, ()

    async def request(self, call, rest):
        if call.request.mechanism_preferences:
            (self.offer,) = call.request.mechanism_preferences
            call.connection.mechanism = self.offer
            self.offer.parameters.update(self.parameters)
        self.sides = call.live.get(CLIENT_SIDE), call.live.get(ENDPOINT_SIDE)
        return await rest.request(call)


@pytest.fixture
async def keys(tmp_path):
    made = [NodeKey(tmp_path / name / "key.pem") for name in "ab"]
    yield made
    for key in made:
        await key.aclose()


async def test_a_server_names_itself_and_its_certificate(keys):
    peer = await keys[0].certificate("client", "c")
    asked = {"src_ip": str(A), "src_port": "4500", "src_public_key": peer.text}
    answer = Answer()
    chain = Chain([Begin(), IpsecServer(IpsecEnd(B, FakeDataplane(), keys[1])), answer])
    mechanism = Mechanism(cls="REMOTE", type="IPSEC", parameters=asked)
    request = NetworkServiceRequest(connection=Connection(id="c", payload="IP", mechanism=mechanism))
    connection = await chain.request(Call(request))
    told = connection.mechanism.parameters
    assert (told["dst_ip"], told["dst_port"], told["MTU"]) == (str(B), "4500", str(1500 - 81))
    side, _ = answer.sides
    assert (side.name, side.remote, side.peer, side.is_client) == ("server-c", A, peer, False)
    assert side.own.text == told["dst_public_key"]


async def test_a_client_offers_its_certificate_and_takes_the_server_s(keys):
    peer = await keys[1].certificate("server", "c")
    answer = Answer(dst_ip=str(B), dst_port="4500", dst_public_key=peer.text)
    begin = Begin()
    offer = OfferIpsec(IpsecEnd(A, FakeDataplane(), keys[0]))
    chain = Chain([begin, MechanismTranslation(), offer, answer])
    request = NetworkServiceRequest(connection=Connection(id="c", payload="IP"))
    call = Call(request, target="tcp://172.16.1.2:5001")
    await chain.request(call)
    assert answer.offer.parameters["src_ip"] == str(A)
    side = call.live.get(ENDPOINT_SIDE)
    assert (side.name, side.remote, side.peer, side.is_client) == ("client-c", B, peer, True)


@pytest.mark.parametrize(("payload", "target"), [("ETHERNET", "tcp://172.16.1.2:5001"), ("IP", "unix:///nse.sock")])
async def test_it_is_offered_for_packets_to_other_nodes_only(keys, payload, target):
    answer = Answer()
    chain = Chain([Begin(), MechanismTranslation(), OfferIpsec(IpsecEnd(A, FakeDataplane(), keys[0])), answer])
    request = NetworkServiceRequest(connection=Connection(id="c", payload=payload))
    await chain.request(Call(request, target=target))
    assert answer.offer is None


async def test_a_certificate_is_the_same_after_a_restart_so_that_its_wire_is_adopted(tmp_path):
    first = NodeKey(tmp_path / "key.pem")
    made = await first.certificate("client", "c")
    again = NodeKey(tmp_path / "key.pem")
    assert await again.certificate("client", "c") == made
    assert await again.certificate("client", "other") != made
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
