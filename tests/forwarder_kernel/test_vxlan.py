"""Who numbers VXLAN wires and which numbers, with a dataplane that is none."""

import ipaddress
import itertools

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Conflict, Element, Exhausted, InvalidRequest, Unavailable
from nsm.forwarder_kernel.tunnels import TUNNEL, Underlay, VniTaken, Vxlan
from nsm.forwarder_kernel.vxlan import OfferVxlan, TryAnotherVni, Vnis, VxlanEnd, VxlanServer

LOW, HIGH = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")


class Dataplane:
    """Knows the MTU, and what an earlier process made."""

    def __init__(self, mtu=1500, former=None):
        self.mtu, self.asked, self.former = mtu, [], former or {}

    def former_vni(self, connection_id):
        return self.former.get(connection_id)

    async def underlay(self, own, peer=None):
        self.asked.append(peer)
        return Underlay("eth0", self.mtu, own)


class Rest(Element):
    """What stands behind: keeps what it saw, and answers, or fails a few times."""

    def __init__(self, answer=None, failures=()):
        self.answer, self.failures, self.seen, self.tunnels = answer, list(failures), [], []

    async def request(self, call, rest):
        self.seen.append(codec.clone(call.request))
        self.tunnels.append(call.live.get(TUNNEL))
        if self.failures:
            raise self.failures.pop(0)
        if self.answer is not None:
            call.connection.mechanism = codec.clone(self.answer)
        return await rest.request(call)


def end(address=HIGH, pick=None, **options):
    return VxlanEnd(address, Dataplane(**options), vnis=Vnis(pick))


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
    dataplane = Dataplane(former={"c": 4711})
    server = VxlanServer(VxlanEnd(HIGH, dataplane, vnis=Vnis(counting(100))))
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
        assert len(preferences) == len(own._dataplane.asked) == offers
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
    assert own._dataplane.asked == [None, HIGH]
    assert begin.stores()[0].get(TUNNEL) == Vxlan(100, LOW, 4789, HIGH, 6000)
    assert len(own.vnis) == 1


async def test_an_answer_without_a_number_is_refused():
    with pytest.raises(InvalidRequest, match="node 172.16.1.2 answered without a VNI"):
        await Chain([Begin(), OfferVxlan(end(LOW)), Rest(answer(vni=""))]).request(offered())


async def test_a_client_whose_kernel_has_the_number_asks_for_one_of_the_same_kind():
    own = end(LOW, counting(200))

    class Kernel(Element):
        """Refuses number 100."""

        async def request(self, call, rest):
            connection = await rest.request(call)
            if call.live.get(TUNNEL).vni == 100:
                raise VniTaken("VNI 100 is taken")
            return connection

    class Far(Element):
        async def request(self, call, rest):
            wished = call.request.mechanism_preferences[0].parameters.get("vni", "100")
            call.connection.mechanism = answer(vni=wished)
            return await rest.request(call)

    begin = Begin()
    await Chain([begin, TryAnotherVni(own), Kernel(), OfferVxlan(own), Far()]).request(offered())
    assert begin.stores()[0].get(TUNNEL).vni == 200
    await begin.close_all()
    assert len(own.vnis) == 0


async def test_trying_other_numbers_ends():
    behind = Rest(failures=[VniTaken("taken")] * 9)
    with pytest.raises(Conflict, match="taken"):
        await Chain([Begin(), TryAnotherVni(end()), VxlanServer(end()), behind]).request(asked())
    assert len(behind.seen) == 5
