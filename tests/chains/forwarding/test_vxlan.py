"""Who numbers VXLAN wires and which numbers, on a dataplane in memory."""

import ipaddress
import itertools

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Conflict, Element, Exhausted, InvalidRequest, Unavailable
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.forwarding.dataplane import VniTaken
from nsm.chains.forwarding.make_wire import MakeWire
from nsm.chains.forwarding.sides import CLIENT_SIDE, ENDPOINT_SIDE, KernelInterface, Vxlan
from nsm.chains.forwarding.vxlan import OfferVxlan, TryAnotherVni, Vnis, VxlanEnd, VxlanServer
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.testing import FakeDataplane

LOW, HIGH = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")


class Rest(Element):
    """What stands behind: keeps what it saw, and answers, or fails a few times."""

    def __init__(self, answer=None, failures=()):
        self.answer, self.failures, self.seen, self.tunnels = answer, list(failures), [], []

    async def request(self, call, rest):
        self.seen.append(codec.clone(call.request))
        self.tunnels.append(call.live.get(CLIENT_SIDE))
        if self.failures:
            raise self.failures.pop(0)
        if self.answer is not None:
            call.connection.mechanism = codec.clone(self.answer)
        return await rest.request(call)


def end(address=HIGH, pick=None):
    return VxlanEnd(address, FakeDataplane(), vnis=Vnis(pick))


def asked(source=LOW, **parameters):
    mechanism = Mechanism(cls="REMOTE", type="VXLAN", parameters={"src_ip": str(source), **parameters})
    return Call(NetworkServiceRequest(connection=Connection(id="c", payload="ETHERNET", mechanism=mechanism)))


def offered(payload="ETHERNET", target="tcp://172.16.1.2:5001"):
    connection = Connection(id="c", payload=payload)
    return Call(NetworkServiceRequest(connection=connection), target=target)


def counting(start):
    return itertools.count(start).__next__


@pytest.mark.parametrize(("client", "server", "odd"), [(LOW, HIGH, 0), (HIGH, LOW, 1), (LOW, LOW, 0)])
async def test_a_number_is_even_if_the_clients_address_is_not_above_the_servers(client, server, odd):
    for start in (100, 101):
        connection = await Chain([Begin(), VxlanServer(end(server, counting(start)))]).request(asked(client))
        assert int(connection.mechanism.parameters["vni"]) % 2 == odd


async def test_addresses_before_a_translation_decide():
    server = VxlanServer(end(LOW, counting(100)))
    connection = await Chain([Begin(), server]).request(asked(HIGH, orig_src_ip="10.0.0.1", orig_dst_ip="10.0.0.9"))
    assert connection.mechanism.parameters["vni"] == "100"


async def test_the_server_says_where_it_is_and_what_fits_before_the_endpoint_is_asked():
    behind = Rest()
    connection = await Chain([Begin(), VxlanServer(end(pick=counting(100))), behind]).request(asked(src_port="5000"))
    wanted = {
        "src_ip": str(LOW),
        "src_port": "5000",
        "dst_ip": str(HIGH),
        "dst_port": "4789",
        "vni": "100",
        "MTU": "1446",
    }
    assert connection.mechanism.parameters == behind.seen[0].connection.mechanism.parameters == wanted
    assert connection.context.mtu == behind.seen[0].connection.context.mtu == 1446
    assert behind.tunnels == [Vxlan(100, HIGH, 4789, LOW, 5000)]


@pytest.mark.parametrize(("told", "context", "least"), [("1300", 0, 1300), ("0", 1200, 1200), ("9000", 0, 1446)])
async def test_the_least_mtu_counts(told, context, least):
    call = asked(MTU=told)
    call.connection.context = ConnectionContext(mtu=context)
    connection = await Chain([Begin(), VxlanServer(end())]).request(call)
    assert connection.context.mtu == least


async def test_a_number_that_is_there_is_kept_and_one_that_was_given_is_given_again():
    numbers = end(pick=counting(100))
    chain = Chain([Begin(), VxlanServer(numbers)])
    assert (await chain.request(asked(vni="77"))).mechanism.parameters["vni"] == "77"
    chain = Chain([Begin(), VxlanServer(numbers)])
    first = await chain.request(asked())
    again = await chain.request(asked())  # the client's node has forgotten it
    assert first.mechanism.parameters["vni"] == again.mechanism.parameters["vni"] == "100"


async def test_a_wire_keeps_its_number_though_both_forwarders_were_restarted():
    """The client's forwarder does not know it any more, and the server's reads it from its own end of the wire."""
    before = FakeDataplane()
    tunnel = Vxlan(4711, HIGH, 4789, LOW, 4789)
    await before.create(Wire(End(tunnel), End(KernelInterface("/ns", "nse-1")), 0, arp=True), "c")
    server = VxlanServer(VxlanEnd(HIGH, before.successor(), vnis=Vnis(counting(100))))
    connection = await Chain([Begin(), server]).request(asked())
    assert connection.mechanism.parameters["vni"] == "4711"


async def test_numbers_in_use_are_not_given_and_come_back_with_the_end_of_their_connection():
    own = end(pick=itertools.cycle([100, 102]).__next__)
    begin = Begin()
    chain = Chain([begin, VxlanServer(own)])
    for name, vni in (("one", "100"), ("two", "102")):
        call = asked()
        call.connection.id = name
        assert (await chain.request(call)).mechanism.parameters["vni"] == vni
    third = asked()
    third.connection.id = "three"
    with pytest.raises(Exhausted, match="no free VNI"):
        await chain.request(third)
    await begin.close_all()
    assert len(own.vnis) == 0


async def test_a_request_that_fails_gives_its_number_back():
    own = end()
    with pytest.raises(Unavailable):
        await Chain([Begin(), VxlanServer(own), Rest(failures=[Unavailable("gone")])]).request(asked())
    assert len(own.vnis) == 0


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"src_ip": "nonsense"}, "src_ip of the VXLAN mechanism is not an IP address: 'nonsense'"),
        ({"vni": "16777216"}, "vni of the VXLAN mechanism is not a number up to 16777215: '16777216'"),
        ({"vni": "-1"}, "vni of the VXLAN mechanism is not a number"),
        ({"src_port": "x"}, "src_port of the VXLAN mechanism is not a number up to 65535"),
        ({"MTU": "big"}, "MTU of the VXLAN mechanism is not a number"),
    ],
)
async def test_a_mechanism_that_cannot_be_is_refused_by_name(parameters, told):
    own = end()
    call = asked()
    call.connection.mechanism.parameters.update(parameters)
    with pytest.raises(InvalidRequest, match=told):
        await Chain([Begin(), VxlanServer(own)]).request(call)
    assert len(own.vnis) == 0


async def test_frames_are_offered_a_vxlan_to_other_nodes_only():
    """Packets have WireGuard, and inside a node the underlay does not matter."""
    for call, offers in ((offered(), 1), (offered("IP"), 0), (offered(target="unix:///nse.sock"), 0)):
        own, behind = end(LOW), Rest()
        await Chain([Begin(), OfferVxlan(own), behind]).request(call)
        preferences = behind.seen[0].mechanism_preferences
        assert len(preferences) == len(own._dataplane.peers) == offers
        if offers:
            assert (preferences[0].cls, preferences[0].type) == ("REMOTE", "VXLAN")
            assert preferences[0].parameters == {"src_ip": str(LOW), "src_port": "4789", "MTU": "1446"}


def answer(**parameters):
    return Mechanism(cls="REMOTE", type="VXLAN", parameters={"dst_ip": str(HIGH), "vni": "100", **parameters})


async def test_the_answer_says_where_the_wire_goes():
    own, behind = end(LOW), Rest(answer(dst_port="6000", MTU="1400"))
    begin = Begin()
    connection = await Chain([begin, OfferVxlan(own), behind]).request(offered())
    assert connection.context.mtu == 1400
    assert own._dataplane.peers == [None, HIGH]
    assert begin.stores()[0].get(ENDPOINT_SIDE) == Vxlan(100, LOW, 4789, HIGH, 6000)
    assert len(own.vnis) == 1


async def test_an_answer_without_a_number_is_refused():
    with pytest.raises(InvalidRequest, match="node 172.16.1.2 answered without a VNI"):
        await Chain([Begin(), OfferVxlan(end(LOW)), Rest(answer(vni=""))]).request(offered())


async def test_a_client_whose_dataplane_has_the_number_asks_for_one_of_the_same_kind():
    """Another server gave it to another wire; the dataplane takes each only once for a UDP port."""
    dataplane, far_side = FakeDataplane(), MechanismTranslation()
    own = VxlanEnd(LOW, dataplane, vnis=Vnis(counting(200)))
    taken = Vxlan(100, LOW, 4789, ipaddress.ip_address("172.16.1.3"), 4789)
    await dataplane.create(Wire(End(KernelInterface("/ns/1", "nsm-1")), End(taken), 0, arp=True), "other")

    class Far(Element):
        async def request(self, call, rest):
            wished = call.request.mechanism_preferences[0].parameters.get("vni", "100")
            call.connection.mechanism = answer(vni=wished)
            return await rest.request(call)

    begin, asking = Begin(), offered()
    asking.connection.mechanism = Mechanism(
        cls="LOCAL", type="KERNEL", parameters={"inodeURL": "file:///ns/2", "name": "nsm-1"}
    )
    elements = [begin, TryAnotherVni(own), MakeWire(dataplane, far_side), far_side, OfferVxlan(own), Far()]
    await Chain(elements).request(asking)
    assert dataplane.wires["c"].wire.endpoint.side == Vxlan(200, LOW, 4789, HIGH, 4789)
    await begin.close_all()
    assert len(own.vnis) == 0


async def test_trying_other_numbers_ends():
    behind = Rest(failures=[VniTaken("taken")] * 9)
    with pytest.raises(Conflict, match="taken"):
        await Chain([Begin(), TryAnotherVni(end()), VxlanServer(end()), behind]).request(asked())
    assert len(behind.seen) == 5
