"""Keys, ports and what both ends of a WireGuard wire tell each other, with a dataplane that is none."""

import asyncio
import base64
import ipaddress
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, InvalidRequest, Unavailable, Unsupported
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.forwarder_kernel import dataplane
from nsm.forwarder_kernel.ends import Place
from nsm.forwarder_kernel.tunnels import TUNNEL, Underlay
from nsm.forwarder_kernel.wireguard import OfferWireguard, WireguardEnd, WireguardServer

LOW, HIGH = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")
KEY = base64.b64encode(bytes([9, *bytes(31)])).decode()


class Ahead:
    def __init__(self):
        self.is_dropped = False

    async def drop(self):
        self.is_dropped = True


class Dataplane:
    """Knows the MTU and which ports are free; notes what is begun."""

    def __init__(self, mtu=1500):
        self.mtu, self.begun, self.fault = mtu, [], None

    async def underlay(self, own, peer=None):
        return Underlay("eth0", self.mtu, own)

    async def free_udp_port(self, wanted, taken):
        port = wanted if wanted not in taken else max(taken) + 1
        await asyncio.sleep(0)
        return port

    async def former_wireguard(self, connection_id):
        return None

    async def check_wireguard(self):
        if self.fault:
            raise Unsupported(self.fault)

    def begin_wireguard(self, room, path, connection_id):
        self.begun.append((room, path, Ahead()))
        return self.begun[-1][2]


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


class Parts:
    """Both elements on one node."""

    def __init__(self, address=LOW, **options):
        self.dataplane = Dataplane(**options)
        self.end = WireguardEnd(address, self.dataplane)
        self.begin, self.translation = Begin(), MechanismTranslation()

    def server(self, *rest):
        return Chain([self.begin, WireguardServer(self.end), *rest])

    def client(self, *rest):
        return Chain([self.begin, self.translation, OfferWireguard(self.end, self.translation), *rest])


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
    tunnel = parts.begin.stores()[0].get(TUNNEL)
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
    tunnels = [store.get(TUNNEL) for store in parts.begin.stores()]
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
    tunnel = parts.begin.stores()[0].get(TUNNEL)
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
    ((room, path, ahead),) = parts.dataplane.begun
    assert (room, path, ahead.is_dropped) == (1440, "/proc/7/ns/net", False)


@pytest.mark.parametrize("behind", [Rest(failure=Unavailable("gone")), Rest(Mechanism(cls="REMOTE", type="VLAN"))])
async def test_what_was_begun_is_ended_if_it_is_of_no_use(behind):
    parts = Parts()
    try:
        await parts.client(behind).request(offered())
    except Unavailable:
        assert parts.end.ports == set()
    assert parts.dataplane.begun[0][2].is_dropped


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
    parts.dataplane.fault = "no program"
    behind = Rest(Mechanism(cls="REMOTE", type="VLAN"))
    await parts.client(behind).request(offered())
    assert behind.seen[0].mechanism_preferences == []
    with pytest.raises(Unsupported, match="asked for none; WireGuard was not offered: no program"):
        await parts.client(Rest(failure=Unsupported("asked for none"))).request(offered(name="d"))
    served = Parts()
    served.dataplane.fault = "no program"
    with pytest.raises(Unsupported, match="no program"):
        await served.server().request(asked())


class Programs:
    """An earlier forwarder's process, and what is done with it."""

    def __init__(self, former):
        self.former, self.ended, self.started = former, [], []

    def claim_former(self, _alias):
        return self.former

    async def end(self, processes):
        self.ended += processes

    async def start(self, path, room, alias):
        self.started.append((path, room, alias))
        return "a new one"


@pytest.mark.parametrize("is_here", [True, False])
async def test_the_program_of_a_node_that_was_rebooted_does_not_stay_beside_the_one_of_the_next_workload(
    is_here, tmp_path, monkeypatch
):
    """It has the wire's keys, and its UDP port, but its workload ended with the node."""
    place = Place(str(tmp_path), "nsm-1")
    key = dataplane.key_at(place.path)
    former = SimpleNamespace(key=key if is_here else (0, 0), is_running=lambda: True)
    plane = dataplane.Dataplane("f")
    try:
        programs = Programs(former)
        monkeypatch.setattr(plane, "_programs", programs)
        monkeypatch.setattr(plane, "_is_as_wanted", AsyncMock(return_value=True))
        process = await plane._process(place, SimpleNamespace(room=1400), "nsm f c", None)
        if is_here:
            assert (process, programs.ended, programs.started) == (former, [], [])
        else:
            assert (process, programs.ended) == ("a new one", [former])
    finally:
        monkeypatch.undo()
        await plane.aclose()
