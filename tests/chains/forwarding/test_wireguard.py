"""Keys, ports and what both ends of a WireGuard wire tell each other, on a dataplane in memory."""

import asyncio
import base64
import ipaddress

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, InvalidRequest, Unavailable, Unsupported
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.forwarding.sides import CLIENT_SIDE, ENDPOINT_SIDE, KernelInterface, Wireguard, local_side
from nsm.chains.forwarding.wireguard import OfferWireguard, WireguardEnd, WireguardServer
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.testing import FakeDataplane

LOW, HIGH = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")
KEY = base64.b64encode(bytes([9, *bytes(31)])).decode()


class Rest(Element):
    """Keeps what it saw, and answers or fails."""

    def __init__(self, answer=None, failure=None):
        self.answer, self.failure, self.seen = answer, failure, []

    async def request(self, call, rest):
        self.seen.append(codec.clone(call.request))
        if self.failure is not None:
            raise self.failure
        if self.answer is not None:
            call.connection.mechanism = codec.clone(self.answer)
        return await rest.request(call)


class Near(Element):
    """The client's side, as `MakeWire` notes it."""

    async def request(self, call, rest):
        call.live.put(CLIENT_SIDE, local_side(call.connection.mechanism))
        return await rest.request(call)


class Parts:
    """Both elements on one node."""

    def __init__(self, address=LOW, dataplane=None):
        self.dataplane = dataplane or FakeDataplane()
        self.end = WireguardEnd(address, self.dataplane)
        self.begin = Begin()

    def server(self, *rest):
        return Chain([self.begin, WireguardServer(self.end), *rest])

    def client(self, *rest):
        return Chain([self.begin, Near(), MechanismTranslation(), OfferWireguard(self.end), *rest])


def asked(**parameters):
    own = {"src_ip": str(LOW), "src_port": "5000", "src_public_key": KEY, **parameters}
    mechanism = Mechanism(cls="REMOTE", type="WIREGUARD", parameters=own)
    return Call(NetworkServiceRequest(connection=Connection(id="c", payload="IP", mechanism=mechanism)))


def offered(payload="IP", target="tcp://172.16.1.2:5001", name="c"):
    near = Mechanism(type="KERNEL", parameters={"inodeURL": "file:///proc/7/ns/net", "name": "nsm-1"})
    connection = Connection(id=name, payload=payload, mechanism=near)
    return Call(NetworkServiceRequest(connection=connection), target=target)


def answer(**parameters):
    own = {"dst_ip": str(HIGH), "dst_port": "6000", "dst_public_key": KEY, "MTU": "1400", **parameters}
    return Mechanism(cls="REMOTE", type="WIREGUARD", parameters=own)


async def test_the_server_tells_its_address_port_and_public_key_and_keeps_them():
    parts = Parts(HIGH)
    first = await parts.server().request(asked())
    told = first.mechanism.parameters
    assert (told["dst_ip"], told["dst_port"], told["MTU"]) == (str(HIGH), "51820", "1440")
    assert len(base64.b64decode(told["dst_public_key"])) == 32
    assert first.context.mtu == 1440
    tunnel = parts.begin.stores()[0].get(CLIENT_SIDE)
    assert (tunnel.peer, tunnel.peer_port, tunnel.peer_key, tunnel.is_client) == (
        LOW,
        5000,
        bytes([9, *bytes(31)]),
        False,
    )
    again = await parts.server().request(asked())
    assert again.mechanism.parameters["dst_port"] == "51820"


async def test_keys_and_ports_are_the_connections_own_and_end_with_it():
    parts = Parts()
    chain = parts.client(Rest(answer()))
    await asyncio.gather(*(chain.request(offered(name=name)) for name in ("one", "two")))
    tunnels = [store.get(ENDPOINT_SIDE) for store in parts.begin.stores()]
    assert tunnels[0].private_key != tunnels[1].private_key
    assert [tunnel.port for tunnel in tunnels] == [51820, 51821]
    assert tunnels[0].private_key.hex() not in repr(tunnels)
    assert str(tunnels[0].private_key) not in repr(tunnels)
    await parts.begin.close_all()
    assert parts.end.ports == set()


async def test_packets_are_offered_a_wireguard_to_other_nodes_only():
    for call, offers in ((offered(), 1), (offered("ETHERNET"), 0), (offered(target="unix:///nse.sock"), 0)):
        parts, behind = Parts(), Rest()
        await parts.client(behind).request(call)
        assert len(behind.seen[0].mechanism_preferences) == offers


async def test_a_refresh_offers_the_same_key_and_begins_nothing():
    parts, behind = Parts(), Rest(answer())
    chain = parts.client(behind)
    for _ in range(2):
        await chain.request(offered())
    one, two = (seen.mechanism_preferences[0].parameters for seen in behind.seen)
    assert one == two
    assert (one["src_ip"], one["src_port"], one["MTU"]) == (str(LOW), "51820", "1440")
    assert len(parts.dataplane.begun) == 1


async def test_the_answer_says_where_the_wire_goes_and_the_least_mtu_counts():
    parts = Parts()
    connection = await parts.client(Rest(answer())).request(offered())
    tunnel = parts.begin.stores()[0].get(ENDPOINT_SIDE)
    assert (tunnel.peer, tunnel.peer_port, tunnel.peer_key, tunnel.is_client) == (
        HIGH,
        6000,
        bytes([9, *bytes(31)]),
        True,
    )
    assert connection.context.mtu == 1400


async def test_the_wire_is_begun_where_the_client_is_while_the_endpoint_is_asked():
    parts = Parts()
    await parts.client(Rest(answer())).request(offered())
    (begun,) = parts.dataplane.begun
    assert (begun.room, begun.side.path, begun.is_dropped) == (1440, "/proc/7/ns/net", False)


@pytest.mark.parametrize("behind", [Rest(failure=Unavailable("gone")), Rest(Mechanism(cls="REMOTE", type="VLAN"))])
async def test_what_was_begun_is_ended_if_it_is_of_no_use(behind):
    parts = Parts()
    try:
        await parts.client(behind).request(offered())
    except Unavailable:
        assert parts.end.ports == set()
    assert parts.dataplane.begun[0].is_dropped


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"src_public_key": ""}, r"src_public_key of the WIREGUARD mechanism is not a key \(32 bytes in base64\): ''"),
        ({"src_public_key": "AAAA"}, "src_public_key of the WIREGUARD mechanism is not a key"),
        ({"src_public_key": "?" * 44}, "src_public_key of the WIREGUARD mechanism is not a key"),
        ({"src_ip": ""}, "src_ip of the WIREGUARD mechanism is not an IP address"),
        ({"src_port": "99999"}, "src_port of the WIREGUARD mechanism is not a number up to 65535"),
    ],
)
async def test_a_mechanism_that_cannot_be_is_refused_by_name(parameters, told):
    parts = Parts(HIGH)
    with pytest.raises(InvalidRequest, match=told):
        await parts.server().request(asked(**parameters))
    assert parts.end.ports == set()


async def test_a_node_without_wireguard_offers_other_mechanisms_and_says_why_if_those_do_not_help():
    parts = Parts()
    parts.dataplane.no_wireguard = Unsupported("no program")
    behind = Rest(Mechanism(cls="REMOTE", type="VLAN"))
    await parts.client(behind).request(offered())
    assert behind.seen[0].mechanism_preferences == []
    with pytest.raises(Unsupported, match="asked for none; WireGuard was not offered: no program"):
        await parts.client(Rest(failure=Unsupported("asked for none"))).request(offered(name="d"))
    served = Parts()
    served.dataplane.no_wireguard = Unsupported("no program")
    with pytest.raises(Unsupported, match="no program"):
        await served.server().request(asked())


async def test_a_port_of_another_program_is_not_promised():
    parts = Parts(HIGH)
    parts.dataplane.taken_ports = {51820}
    told = (await parts.server().request(asked())).mechanism.parameters
    assert told["dst_port"] == "51821"


async def test_a_wire_keeps_its_key_and_its_port_though_the_forwarder_was_restarted():
    before = FakeDataplane()
    first = Parts(HIGH, before)
    told = (await first.server().request(asked())).mechanism.parameters
    tunnel = first.begin.stores()[0].get(CLIENT_SIDE)
    assert isinstance(tunnel, Wireguard)
    await before.create(Wire(End(tunnel), End(KernelInterface("/ns", "nse-1")), 0, arp=False), "c")
    again = (await Parts(HIGH, before.successor()).server().request(asked())).mechanism.parameters
    assert (again["dst_public_key"], again["dst_port"]) == (told["dst_public_key"], told["dst_port"])
