"""What VPP, peers and configurations may do wrong: an error says what, and nothing is left."""

import asyncio
import ipaddress

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Conflict, InvalidRequest, MeshError, Unavailable, Unsupported
from nsm.chains.forwarding.dataplane import VniTaken
from nsm.chains.forwarding.sides import Breakout, KernelInterface, Memif, Vxlan, Wireguard
from nsm.forwarder_vpp.api import Rejected, Silent, UnknownMessage, Unreachable
from nsm.forwarder_vpp.certificates import peer_certificate
from nsm.forwarder_vpp.ipsec import Ipsec
from nsm.forwarder_vpp.ports import check_socket
from tests.forwarder_vpp.standin import standing_in
from tests.system.forwarder_kernel.hosts import Host
from tests.system.forwarder_kernel.nodes import Underlay

from .vpps import external
from .wires import between, keys

pytestmark = pytest.mark.system

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))
KINDS = ("kernel", "memif", "vxlan", "wireguard", "ipsec", "vlan")


@pytest.fixture
def node():
    underlay = Underlay()
    made = underlay.node(f"{A}/24")
    made.peer = underlay.node(f"{B}/24")
    return made


@pytest.fixture
async def vpp(tmp_path):
    async with standing_in(tmp_path, links=None) as running:
        yield running


@pytest.fixture
async def forwarder(vpp, node, tmp_path):
    node.run("ip", "link", "add", "out", "up", "type", "veth", "peer", "name", "beyond")
    node.run("ip", "link", "set", "beyond", "up")
    async with external(vpp, node, tmp_path, address=A, devices=("out",)) as made:
        yield made


async def wanted(kind, forwarder, client, endpoint):
    """A wire from a client's interface to another kind of side."""
    near, mtu = KernelInterface(client.path, "nsm-1"), 1400
    match kind:
        case "kernel":
            return between(near, KernelInterface(endpoint.path, "nse-1"))
        case "memif":
            return between(near, Memif("@/run/nse.sock", endpoint.path))
        case "vxlan":
            return between(near, Vxlan(7, A, 4789, B, 4789), "ETHERNET", mtu)
        case "wireguard":
            own, peer = keys()[0], keys()[1]
            return between(near, Wireguard(own, 51820, peer, B, 51999, mtu, is_client=True), mtu=mtu)
        case "ipsec":
            own, peer = [await forwarder.key.certificate(role, "c") for role in ("server", "client")]
            return between(Ipsec("server-c", own, peer, B, is_client=False), KernelInterface(endpoint.path, "nse-1"))
        case "vlan":
            return between(near, Breakout("out", 100), "ETHERNET")


def state(vpp, client, endpoint, node):
    """All that a wire consists of."""
    world = vpp.world
    own = {name for name in node.links() if name.startswith("nsm")}
    interfaces = sorted((one.name, one.tag, one.admin) for one in world.interfaces.values())
    return interfaces, dict(world.l3xc), dict(world.profiles), dict(world.domains), set(client.links()), own


@pytest.mark.parametrize("kind", KINDS)
async def test_vpp_answers_an_error_to_each_message_in_turn_and_nothing_is_left(kind, vpp, forwarder, node):
    client, endpoint = Host(), Host()
    wire = await wanted(kind, forwarder, client, endpoint)
    await forwarder.plane.create(wire, "c")
    await forwarder.plane.remove("c")
    before = state(vpp, client, endpoint, node)
    vpp.seen.clear()
    await forwarder.plane.create(wire, "c")
    changing = [name for name in dict.fromkeys(name for name, _ in vpp.seen) if not name.endswith(("_dump", "_ping"))]
    await forwarder.plane.remove("c")
    assert len(changing) > 5
    for name in changing:
        vpp.refuse(name, -9)
        with pytest.raises(Rejected, match=rf"VPP rejected {name}: .*\(-9\)"):
            await forwarder.plane.create(wire, "c")
        assert state(vpp, client, endpoint, node) == before, name
    await forwarder.plane.create(wire, "c")
    assert vpp.faults == []


async def test_vpp_hangs_and_the_request_says_at_which_message(vpp, forwarder, node):
    client, endpoint = Host(), Host()
    wire = await wanted("kernel", forwarder, client, endpoint)
    vpp.plan("hang", "l3xc_update")
    with pytest.raises(Silent, match="did not answer l3xc_update within 0.3 s"):
        await forwarder.plane.create(wire, "c")
    assert client.links() == endpoint.links() == {}
    vpp.resume()


async def test_an_answer_that_comes_too_late_leaves_no_interface(vpp, forwarder):
    client, endpoint = Host(), Host()
    wire = await wanted("kernel", forwarder, client, endpoint)
    vpp.plan("ignore", "af_packet_create_v3")
    with pytest.raises(Silent):
        await forwarder.plane.create(wire, "c")
    await forwarder.plane.create(wire, "c")  # the interface that was made without an answer is replaced
    assert len([one for one in vpp.world.interfaces.values() if one.name.startswith("host-nsm")]) == 2


async def test_a_cancelled_request_leaves_nothing(vpp, forwarder, node):
    client, endpoint = Host(), Host()
    wire = await wanted("kernel", forwarder, client, endpoint)
    before = state(vpp, client, endpoint, node)
    for pause in (0, 0.002, 0.005, 0.01, 0.02):
        making = asyncio.ensure_future(forwarder.plane.create(wire, "c"))
        await asyncio.sleep(pause)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        await forwarder.plane.remove("c")
        assert state(vpp, client, endpoint, node) == before


async def test_a_vpp_that_lacks_a_plugin_is_refused_at_the_start(tmp_path, node):
    async with standing_in(tmp_path, without={"l3xc_update"}) as vpp:
        with pytest.raises(UnknownMessage, match="does not have l3xc_update"):
            async with external(vpp, node, tmp_path):
                pass


async def test_a_vpp_that_is_too_old_is_refused_at_the_start(tmp_path, node):
    async with standing_in(tmp_path, changed={"memif_create_v2"}) as vpp:
        with pytest.raises(UnknownMessage, match="memif_create_v2 with the checksum"):
            async with external(vpp, node, tmp_path):
                pass


async def test_the_api_socket_is_another_program_s(tmp_path, node):
    async def answer(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8)
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "api.sock")
    async with server:
        with pytest.raises(Unreachable, match="does not answer as VPP"):
            async with external(tmp_path / "api.sock", node, tmp_path):
                pass


@pytest.mark.parametrize(
    "name",
    ["", "/run/vpp/memif.sock", "@", "@/run/../nsm/memif/1", "@x,netns_name=/proc/1/ns/net", "@a\0b", "@" + "x" * 91],
)
def test_a_memif_socket_that_vpp_would_open_elsewhere_is_refused(name):
    with pytest.raises(InvalidRequest, match="is not the name of a memif socket"):
        check_socket(name)


async def test_a_memif_socket_without_a_namespace_is_refused(forwarder):
    wire = between(KernelInterface(Host().path, "nsm-1"), Memif("@/run/nse.sock", ""))
    with pytest.raises(InvalidRequest, match="has no inodeURL"):
        await forwarder.plane.create(wire, "c")


async def test_a_memif_socket_that_is_another_client_s_is_refused(forwarder):
    client, endpoint, other = Host(), Host(), Host()
    own = between(Memif("@/run/nsm/memif/1/memif.sock", client.path), KernelInterface(endpoint.path, "nse-1"))
    await forwarder.plane.create(own, "1")
    theirs = between(KernelInterface(other.path, "nsm-1"), Memif("@/run/nsm/memif/1/memif.sock", client.path))
    with pytest.raises(Conflict, match="belongs to connection 1"):
        await forwarder.plane.create(theirs, "2")


async def test_a_tunnel_address_that_no_interface_has_is_refused_at_the_start(vpp, node, tmp_path):
    with pytest.raises(Conflict, match=r"172\.16\.9\.9 is on no interface of this node; NSM_TUNNEL_IP"):
        async with external(vpp, node, tmp_path, address=ipaddress.ip_address("172.16.9.9")):
            pass


async def test_an_uplink_that_the_node_does_not_have_is_refused(vpp, node, tmp_path):
    with pytest.raises(Conflict, match="no uplink nowhere; NSM_DEVICE_SELECTOR_FILE"):
        async with external(vpp, node, tmp_path, devices=("nowhere",)):
            pass


async def test_a_vni_that_is_taken_is_told_so_that_another_one_is_tried(forwarder):
    tunnel = Vxlan(7, A, 4789, B, 4789)
    for number in ("1", "2"):
        wire = between(KernelInterface(Host().path, "nsm-1"), tunnel, "ETHERNET", 1400)
        if number == "1":
            await forwarder.plane.create(wire, number)
            continue
        with pytest.raises(VniTaken):
            await forwarder.plane.create(wire, number)


async def test_sides_that_vpp_cannot_join_are_named(forwarder):
    tunnel = Wireguard(keys()[0], 51820, keys()[1], B, 51820, 1400, is_client=True)
    with pytest.raises(Unsupported, match="a wire for frames from KERNEL to WIREGUARD cannot be made by VPP"):
        await forwarder.plane.create(between(KernelInterface(Host().path, "nsm-1"), tunnel, "ETHERNET"), "c")


@pytest.mark.parametrize("text", ["", "AAAA", "x" * 9000])
def test_a_peer_s_certificate_that_is_none_is_refused(text):
    mechanism = Mechanism(type="IPSEC", parameters={"src_public_key": text})
    with pytest.raises(InvalidRequest, match="src_public_key of the IPSEC mechanism is not a certificate"):
        peer_certificate(mechanism, "src_public_key")


async def test_vpp_dies_between_two_messages_and_the_request_fails_in_time(vpp, forwarder, node):
    client, endpoint = Host(), Host()
    wire = await wanted("kernel", forwarder, client, endpoint)
    vpp.plan("die before", "l3xc_update")
    with pytest.raises(MeshError):
        await forwarder.plane.create(wire, "c")
    assert client.links() == endpoint.links() == {}
    with pytest.raises(Unavailable, match="VPP is gone"):
        await forwarder.session.vpp()


@pytest.mark.parametrize(("refusals", "is_whole"), [((1,), True), ((1, 5), False)])
async def test_what_a_started_vpp_refuses_is_tried_twice_and_then_the_client_is_asked(
    vpp, forwarder, refusals, is_whole
):
    """The first of four such messages that a wire needs."""
    live = await forwarder.plane.create(await wanted("kernel", forwarder, Host(), Host()), "c")
    reported = []
    live.when_repaired = lambda whole: reported.append((live.fault, whole))
    forwarder.plane._ended("VPP has ended")
    for count in refusals:
        vpp.refuse("l3xc_update", -9, count=count)
    await forwarder.plane._rebuild(await forwarder.session.vpp())
    assert reported == [("VPP has ended", False), ("", is_whole)]
