"""The chain of a forwarder, on dataplanes in memory: two nodes agree on a tunnel, and what is left when one fails."""

import ipaddress
import time
from contextlib import AsyncExitStack, asynccontextmanager

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import forwarder as module
from nsm.chains.core import Call, Unavailable, Unsupported
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.forwarding.sides import KernelInterface, Vxlan, Wireguard
from nsm.chains.forwarding.vlan import Uplink, vlan
from nsm.chains.forwarding.vxlan import vxlan
from nsm.chains.forwarding.wireguard import wireguard
from nsm.chains.identity import Authority
from nsm.chains.policy import NO_TRUST
from nsm.chains.testing import FakeDataplane, Network, identity_of

A, B = ipaddress.ip_address("172.16.1.1"), ipaddress.ip_address("172.16.1.2")
NEAR, FAR = KernelInterface("/proc/self/ns/net", "nsm-1"), KernelInterface("/proc/self/ns/net", "nse-1")


def local(side):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": f"file://{side.path}", "name": side.name})


class Endpoint:
    """The far end of everything."""

    def __init__(self, mechanism=None):
        self.mechanism, self.offers, self.closes = mechanism or local(FAR), [], 0

    async def request(self, call):
        self.offers.append([each.type for each in call.request.mechanism_preferences])
        call.connection.mechanism = codec.clone(self.mechanism)
        return call.connection

    async def close(self, call):
        self.closes += 1


class Next:
    """The way from one forwarder to the other, as if there were nothing between."""

    def __init__(self, chain, offers):
        self.chain, self.offers = chain, offers

    async def request(self, call):
        self.offers.append([each.type for each in call.request.mechanism_preferences])
        return await self.chain.request(Call(codec.clone(call.request), target="unix:///endpoint"))

    async def close(self, call):
        await self.chain.close(Call(codec.clone(call.request), target="unix:///endpoint"))


@asynccontextmanager
async def nodes(monkeypatch, *, endpoint=None, dataplanes=None, uplinks=(), offers=None):
    """Forwarder a, whose requests reach forwarder b, whose requests reach the endpoint."""
    authority, network, far = Authority.create("test.mesh"), Network(), endpoint or Endpoint()
    async with AsyncExitStack() as stack:
        for address, plane in zip((B, A), reversed(dataplanes), strict=True):
            monkeypatch.setattr(module, "RemoteNetworkService", lambda *_, far=far, **__: far)
            identity = identity_of(authority, f"forwarder-{address}")
            supported = [kernel(), vxlan(address, plane, NO_TRUST), wireguard(address, plane, NO_TRUST)]
            supported += [vlan(uplinks, plane)] if uplinks else []
            made = module.forwarder(
                f"forwarder-{address}", identity, network.pool(identity), plane, supported,
                nsmgr_url="unix:///nsmgr", policies=[], answer_policies=[],
            )  # fmt: skip
            far = Next((await stack.enter_async_context(made)).chain, [] if offers is None else offers)
        yield made.chain


def asked(payload, name="c", near=NEAR):
    """A call as the client's transport brings it."""
    ends = int(time.time()) + 300
    token = jwt.encode({"sub": "spiffe://test.mesh/client", "exp": ends}, "of nobody's key, which is long enough")
    caller = PathSegment(name="client", id=name, token=token, expires=Timestamp.from_seconds(ends))
    connection = Connection(id=name, network_service="svc", payload=payload, path=Path(path_segments=[caller]))
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=[local(near)])
    return Call(request, target="tcp://b:5000")


async def test_frames_go_by_a_vxlan_of_one_number_and_each_end_knows_the_other(monkeypatch):
    planes = FakeDataplane(), FakeDataplane()
    async with nodes(monkeypatch, dataplanes=planes) as chain:
        made = await chain.request(asked("ETHERNET"))
        ((here, to_there), (to_here, there)) = [
            plane.wires[each].wire.sides for plane in planes for each in plane.wires
        ]
        assert (here, there) == (NEAR, FAR)
        vni = to_there.vni
        assert (to_there, to_here) == (Vxlan(vni, A, 4789, B, 4789), Vxlan(vni, B, 4789, A, 4789))
        assert (made.mechanism.type, made.context.mtu) == ("KERNEL", 1446)
        await chain.close(Call(NetworkServiceRequest(connection=made)))
        assert [plane.wires for plane in planes] == [{}, {}]


async def test_packets_go_by_a_wireguard_and_each_end_has_the_others_key(monkeypatch):
    planes = FakeDataplane(), FakeDataplane()
    async with nodes(monkeypatch, dataplanes=planes) as chain:
        await chain.request(asked("IP"))
        ((_, ours), (theirs, _)) = [plane.wires[each].wire.sides for plane in planes for each in plane.wires]
        assert isinstance(ours, Wireguard)
        assert isinstance(theirs, Wireguard)
        for one, other in ((ours, theirs), (theirs, ours)):
            assert (
                one.peer_key == X25519PrivateKey.from_private_bytes(other.private_key).public_key().public_bytes_raw()
            )
        assert (ours.peer, theirs.peer, ours.is_client, theirs.is_client) == (B, A, True, False)


async def test_a_number_that_the_clients_node_has_already_is_replaced_on_both_nodes(monkeypatch):
    planes = FakeDataplane(), FakeDataplane()
    async with nodes(monkeypatch, dataplanes=planes) as chain:
        await chain.request(asked("ETHERNET"))
        (tunnel,) = [each.wire.endpoint.side for each in planes[0].wires.values()]
        planes[1].wires.clear()  # the other node was restarted, and does not know that it gave it

        def again(_self, parity, taken=[tunnel.vni]):  # noqa: B006 - the first number is the same, the next is not
            return taken.pop() if taken else tunnel.vni + 2

        monkeypatch.setattr("nsm.chains.forwarding.vxlan.Vnis.choose", again)
        await chain.request(asked("ETHERNET", "d", KernelInterface(NEAR.path, "nsm-2")))
        numbers = {wire.wire.endpoint.side.vni for wire in planes[0].wires.values()}
        assert numbers == {tunnel.vni, tunnel.vni + 2}


@pytest.mark.parametrize("which", [0, 1])
async def test_a_node_that_cannot_make_its_part_leaves_nothing_on_the_other(monkeypatch, which):
    planes, endpoint = (FakeDataplane(), FakeDataplane()), Endpoint()
    planes[which].errors = [Unavailable("no memory for an interface")]
    async with nodes(monkeypatch, dataplanes=planes, endpoint=endpoint) as chain:
        with pytest.raises(Unavailable, match="no memory for an interface"):
            await chain.request(asked("ETHERNET"))
        assert [plane.wires for plane in planes] == [{}, {}]
        assert endpoint.closes == 1


async def test_endpoints_of_this_node_are_offered_what_works_inside_it_and_others_what_leads_there(monkeypatch):
    endpoint, planes, offers = Endpoint(), (FakeDataplane(), FakeDataplane()), []
    options = {"endpoint": endpoint, "uplinks": [Uplink("eth1", ())], "offers": offers}
    async with nodes(monkeypatch, dataplanes=planes, **options) as chain:
        for number, payload in enumerate(("ETHERNET", "IP")):
            await chain.request(asked(payload, f"c{number}", KernelInterface(NEAR.path, f"nsm-{number}")))
            endpoint.mechanism = local(KernelInterface(FAR.path, "nse-2"))
    assert endpoint.offers == [["KERNEL"]] * 2
    assert offers == [["VXLAN", "VLAN"], ["WIREGUARD", "VLAN"]]


async def test_a_mechanism_that_no_element_serves_is_refused_by_name(monkeypatch):
    async with nodes(monkeypatch, dataplanes=(FakeDataplane(), FakeDataplane())) as chain:
        wanted = asked("IP")
        wanted.request.mechanism_preferences = [Mechanism(cls="LOCAL", type="MEMIF")]
        with pytest.raises(Unsupported, match="requested MEMIF; available here: KERNEL, VXLAN, WIREGUARD"):
            await chain.request(wanted)
