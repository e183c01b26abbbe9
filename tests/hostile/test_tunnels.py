"""A workload has a tunnel made to another node with a number of its choice: it would send into others' wires there."""

import ipaddress
import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Call, Peer, Refused
from nsm.chains.identity import Authority
from nsm.chains.policy import IdPatterns, Trust
from nsm.chains.testing.dataplane import FakeDataplane
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool
from tests.hostile.answers import GOOD, Answers, forwarder_with

AUTHORITY = Authority.create("test.mesh")
TRUST = Trust(intermediaries=IdPatterns(["spiffe://test.mesh/*/nsmgr", "spiffe://test.mesh/*/forwarder"]))
HERE, THERE = "172.16.1.1", "172.16.1.9"
NEAR = Mechanism(cls="LOCAL", type="KERNEL", parameters=GOOD["KERNEL"])


def peer(name):
    identity = identity_of(AUTHORITY, name)
    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


def asked(*names, mechanism):
    """A call along a path whose last component is the caller."""
    ends = int(time.time()) + 300
    segments = [
        PathSegment(
            name=name,
            id=f"id-{number}",
            token=jwt.encode(
                {"sub": f"spiffe://test.mesh/{name}", "exp": ends}, "of nobody's key, which is long enough"
            ),
            expires=Timestamp.from_seconds(ends),
        )
        for number, name in enumerate(names)
    ]
    payload = "ETHERNET" if mechanism.type == "VXLAN" else "IP"
    connection = Connection(
        id=segments[-1].id, network_service="icmp", payload=payload, mechanism=mechanism,
        path=Path(index=len(names) - 1, path_segments=segments),
    )  # fmt: skip
    return Call(NetworkServiceRequest(connection=connection), peer=peer(names[-1]), target="unix:///x")


class Answering(Answers):
    """The far end, as TLS shows it."""

    def __init__(self, name):
        super().__init__()
        self.name, self.closed = name, 0

    async def request(self, call):
        call.server_peer = peer(self.name)
        return await super().request(call)

    async def close(self, call):
        self.closed += 1


@pytest.fixture
async def forwarder(monkeypatch):
    """A forwarder of node 1 whose far end is what it is given."""
    plane, identity = FakeDataplane(), identity_of(AUTHORITY, "node-1/forwarder")

    def make(far):
        options = {"trust": TRUST, "policies": [], "answer_policies": []}
        return forwarder_with(plane, identity, pool, far, ipaddress.ip_address(HERE), monkeypatch, **options)

    async with Pool(identity, dial_timeout=0.2) as pool:
        make.plane = plane
        yield make


def told(kind):
    return Mechanism(cls="REMOTE", type=kind, parameters={**GOOD[kind], "src_ip": THERE, "vni": "4242"})


@pytest.mark.parametrize("kind", ["VXLAN", "WIREGUARD"])
@pytest.mark.parametrize(
    "names",
    [("attacker",), ("attacker", "node-1/nsmgr"), ("node-2/forwarder", "attacker", "node-1/nsmgr"), ("x", "attacker")],
)
async def test_no_workload_has_a_tunnel_made_to_another_node(forwarder, kind, names):
    async with forwarder(Answering("endpoint")) as server:
        with pytest.raises(Refused, match=r"test.mesh/attacker may not name the other end .* NSM_INTERMEDIARIES"):
            await server.chain.request(asked(*names, mechanism=told(kind)))
        assert forwarder.plane.wires == {}


@pytest.mark.parametrize("kind", ["VXLAN", "WIREGUARD"])
async def test_a_forwarder_of_another_node_has_one_made_by_way_of_our_manager(forwarder, kind):
    async with forwarder(Answering("endpoint")) as server:
        names = ("client", "node-2/nsmgr", "node-2/forwarder", "node-1/nsmgr")
        await server.chain.request(asked(*names, mechanism=told(kind)))
        assert len(forwarder.plane.wires) == 1


@pytest.mark.parametrize(("who", "made"), [("attacker", 0), ("node-2/nsmgr", 1)])
async def test_no_endpoint_says_where_a_tunnel_ends(forwarder, who, made):
    far = Answering(who)
    answer = {"dst_ip": THERE, "dst_port": "4789", "vni": "4242", "src_ip": HERE, "MTU": "1400"}
    far.changes = {"mechanism": Mechanism(cls="REMOTE", type="VXLAN", parameters=answer)}
    async with forwarder(far) as server:
        call = asked("client", "node-1/nsmgr", mechanism=NEAR)
        call.connection.payload, call.peer, call.target = "ETHERNET", None, f"tcp://{THERE}:5001"
        if made:
            await server.chain.request(call)
        else:
            with pytest.raises(Refused, match="test.mesh/attacker may not name the other end"):
                await server.chain.request(call)
        assert len(forwarder.plane.wires) == made
