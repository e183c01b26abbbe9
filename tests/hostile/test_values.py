"""Texts, numbers and amounts that no honest peer sends: in requests, and in answers."""

import argparse
import asyncio
import base64
import dataclasses
import ipaddress
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connectioncontext import (
    ConnectionContext,
    DnsConfig,
    DnsContext,
    EthernetContext,
    ExtraPrefixRequest,
    IpContext,
    IpNeighbor,
    PolicyRoute,
    Route,
)
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.apis.wellknown import Timestamp
from nsm.chains.composed import client, endpoint, nsmgr
from nsm.chains.core import Call, Found, Internal, InvalidRequest, MeshError
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.identity import Authority
from nsm.chains.model.nsurl import parse_groups
from nsm.chains.testing.dataplane import FakeDataplane
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool
from nsm.chains.transport.rpc import REQUEST
from nsm.mesh import cli
from nsm.mesh.tree import tree
from nsm.services.tools import find
from tests.hostile.answers import GOOD, Answers, changed, forwarder_with

from .attacker import Attacker

CONTROLS = [
    "\x00",
    "a\x1b[2Jb",
    "\x1b]0;title\x07",
    "a\u202eb",
    "\u2066x",
    "a\u200bb",
    "a\nb",
    "a\r\nb",
    "\x7f",
    "\x9b31m",
    "\ufeff",
]
LONG = ["x" * 70_000, "9" * 5_000, "1." * 30_000, "::" * 30_000]
NAMES = [
    *CONTROLS,
    *LONG,
    "eth%d",
    "../../proc/self/ns/net",
    "..",
    "all",
    "default",
    "a/b",
    "a b",
    "%n%s",
    "-rf",
    "'; --",
]


@pytest.fixture
def attacked(target):
    return target


def ip(**fields):
    return {"context": ConnectionContext(ip_context=IpContext(**fields))}


MESSAGES = {
    "service": lambda text: {"service": text},
    "label": lambda text: {"labels": {"app": text}},
    "key of a label": lambda text: {"labels": {text: "web"}},
    "endpoint": lambda text: {"network_service_endpoint_name": text},
    "payload": lambda text: {"payload": text},
    "address": lambda text: ip(src_ip_addrs=[text]),
    "route": lambda text: ip(dst_routes=[Route(prefix=text)]),
    "next hop": lambda text: ip(dst_routes=[Route(prefix="10.9.0.0/16", next_hop=text)]),
    "excluded prefix": lambda text: ip(excluded_prefixes=[text]),
    "neighbor": lambda text: ip(ip_neighbors=[IpNeighbor(ip="10.0.0.1", hardware_address=text)]),
    "port of a policy": lambda text: ip(policies=[PolicyRoute(dst_port=text)]),
    "protocol of a policy": lambda text: ip(policies=[PolicyRoute(proto=text)]),
    "DNS server": lambda text: {"context": ConnectionContext(dns_context=DnsContext(configs=[DnsConfig([text], [])]))},
    "extra context": lambda text: {"context": ConnectionContext(extra_context={"k": text})},
    "MAC": lambda text: {"context": ConnectionContext(ethernet_context=EthernetContext(src_mac=text))},
}  # fmt: skip


async def refusal(attacker, connection, preference):
    """The line that the attacker is told."""
    with pytest.raises(MeshError) as raised:
        await attacker.request(connection, preference, files=[attacker.network])
    told = str(raised.value)
    assert not isinstance(raised.value, Internal), told
    assert len(told) < 500
    assert told.isprintable()
    return told


async def test_a_text_that_cannot_be_is_refused_at_the_door_in_one_short_line(attacker):
    for make in MESSAGES.values():
        for text in ("a\x1b[2J\u202e\nb", "x" * 20_000, "9" * 5_000):
            await refusal(attacker, attacker.connection("evil", **make(text)), attacker.kernel())


async def test_an_interface_gets_no_name_that_the_kernel_or_a_path_would_read_as_something_else(attacker):
    for name in ("eth%d", "a/b", "..", "all", "default", "a b", "a\n", "\x1b[2J", "a\u202e", "x" * 16, "x" * 20_000):
        told = await refusal(attacker, attacker.connection("evil"), attacker.kernel(name))
        assert "name of the KERNEL mechanism" in told


async def test_thousands_of_addresses_are_refused_at_once_and_nobody_waits(mesh, bystander):
    """119 KB of them froze a forwarder for 17 s."""
    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(8_000)]
    async with Attacker(mesh) as attacker, bystander.watching():
        for number in range(10):
            begin = time.monotonic()
            with pytest.raises(MeshError) as raised:
                await attacker.request(
                    attacker.connection(f"many-{number}", **ip(src_ip_addrs=addresses)), attacker.kernel()
                )
            assert not isinstance(raised.value, Internal)
            assert time.monotonic() - begin < 2


EMPTY = {
    "preferences": NetworkServiceRequest(mechanism_preferences=[Mechanism()] * 32_000),
    "segments": NetworkServiceRequest(connection=Connection(path=Path(path_segments=[PathSegment()] * 32_000))),
    "policies": NetworkServiceRequest(connection=Connection(**ip(policies=[PolicyRoute()] * 32_000))),
    "configurations": NetworkServiceRequest(
        connection=Connection(context=ConnectionContext(dns_context=DnsContext(configs=[DnsConfig()] * 32_000)))
    ),
}


async def test_messages_full_of_empty_ones_are_refused_at_once_and_nobody_waits(mesh, bystander):
    """Each takes two bytes, and an object: one Request of 64 KiB made others wait for 200 ms."""
    asked = [message for message in EMPTY.values() for _ in range(10)]
    async with Attacker(mesh) as attacker, bystander.watching():
        outcomes = await asyncio.gather(
            *(attacker.call(mesh.urls["nsmgr"], REQUEST, message, Connection) for message in asked),
            return_exceptions=True,
        )
    assert {type(each) for each in outcomes} == {InvalidRequest}
    assert all("too many parts" in str(each) for each in outcomes)


MANY = {
    "addresses": ip(src_ip_addrs=[f"10.0.1.{n}/32" for n in range(65)]),
    "routes": ip(src_routes=[Route(prefix=f"10.{n}.{m}.0/24") for n in range(2) for m in range(129)]),
    "policies": ip(policies=[PolicyRoute(dst_port=str(n)) for n in range(1, 66)]),
    "connection_labels": {"labels": {f"k{n}": "" for n in range(65)}},
    "extra_context": {"context": ConnectionContext(extra_context={f"k{n}": "" for n in range(65)})},
    "dns_configs": {"context": ConnectionContext(dns_context=DnsContext(configs=[DnsConfig(["10.0.0.1"], [])] * 33))},
}


@pytest.mark.parametrize("limit", MANY)
async def test_too_many_of_something_name_the_limit_and_how_to_change_it(composed, limit):
    async with Attacker(composed) as attacker:
        with pytest.raises(
            InvalidRequest, match=rf"are too many; at most \d+ are allowed \(NSM_LIMITS={limit}:"
        ) as raised:
            await attacker.request(attacker.connection("evil", **MANY[limit]), attacker.kernel())
    assert len(str(raised.value)) < 300


# --- whatever a request or an answer holds: in process, with a stub in place of the kernel


HOSTILE = st.one_of(
    st.sampled_from([*NAMES, "0.0.0.0/0", "::/0", "127.0.0.1/8", "10.0.0.1", "10.0.0.1/33", "fe80::1%eth0/64", "-1", "0", "65536", "1-2-3", "\u0661", "²", "1e400", "true", "02:00:00:00:00", "inode://1/2", "file:///proc/1/ns/net", "unix:///x"]),
    st.text(max_size=40),
    st.sampled_from(["10.0.0.1/32", "fd00::1/128", "10.0.0.0/8", "02:00:00:00:00:01", "80-90", "nsm-1"]),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 67, 68, 1280, 65535, 65536, 2**31, 2**32 - 1]))
KEYS = st.sampled_from(["name", "inodeURL", "src_ip", "dst_ip", "src_port", "dst_port", "vni", "MTU", "vlan-id", "vlan",
                        "src_public_key", "dst_public_key", "pciAddress", "routeLocalNet", "IPTables4NatTemplate"])  # fmt: skip
ROUTES = st.lists(st.builds(Route, prefix=HOSTILE, next_hop=HOSTILE), max_size=3)
TEXTS = st.lists(HOSTILE, max_size=3)
MAPS = st.dictionaries(HOSTILE, HOSTILE, max_size=3)
MECHANISMS = st.builds(
    Mechanism,
    cls=st.sampled_from(["LOCAL", "REMOTE", ""]),
    type=st.sampled_from(["KERNEL", "VXLAN", "WIREGUARD", "VLAN", "NOOP", "", "\x00"]),
    parameters=st.dictionaries(st.one_of(KEYS, HOSTILE), HOSTILE, max_size=6),
)
IP = st.builds(
    IpContext,
    src_ip_addrs=TEXTS, dst_ip_addrs=TEXTS, src_routes=ROUTES, dst_routes=ROUTES, excluded_prefixes=TEXTS,
    ip_neighbors=st.lists(st.builds(IpNeighbor, ip=HOSTILE, hardware_address=HOSTILE), max_size=2),
    extra_prefix_request=st.lists(st.builds(ExtraPrefixRequest, prefix_len=NUMBERS, required_number=NUMBERS), max_size=1),
    extra_prefixes=TEXTS,
    policies=st.lists(st.builds(PolicyRoute, from_=HOSTILE, proto=HOSTILE, dst_port=HOSTILE, src_port=HOSTILE, routes=ROUTES), max_size=2),
)  # fmt: skip
CONTEXTS = st.builds(
    ConnectionContext,
    ip_context=st.none() | IP,
    dns_context=st.none() | st.builds(DnsContext, configs=st.lists(st.builds(DnsConfig, TEXTS, TEXTS), max_size=2)),
    ethernet_context=st.none() | st.builds(EthernetContext, src_mac=HOSTILE, dst_mac=HOSTILE, vlan_tag=st.integers(-(2**31), 2**31 - 1)),
    extra_context=MAPS,
    mtu=NUMBERS,
)  # fmt: skip
TIMES = st.none() | st.builds(
    Timestamp, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1)
)
SEGMENTS = st.builds(PathSegment, name=HOSTILE, id=HOSTILE, token=HOSTILE, expires=TIMES, metrics=MAPS)
FIELDS = {
    "id": HOSTILE, "network_service": HOSTILE, "network_service_endpoint_name": HOSTILE, "payload": HOSTILE,
    "labels": MAPS, "mechanism": MECHANISMS, "context": CONTEXTS,
    "path": st.builds(Path, index=NUMBERS, path_segments=st.lists(SEGMENTS, max_size=3)),
}  # fmt: skip
MUTATIONS = st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none(), max_size=3).flatmap(
    lambda chosen: st.fixed_dictionaries({name: FIELDS[name] for name in chosen})
)


def well_formed(type_="KERNEL"):
    return Connection(
        id="c", network_service="icmp", payload="IP" if type_ != "VXLAN" else "ETHERNET",
        mechanism=Mechanism(cls="LOCAL" if type_ == "KERNEL" else "REMOTE", type=type_, parameters=GOOD[type_]),
        path=Path(index=0, path_segments=[PathSegment(name="client", id="c", token="x", expires=SOON)]),
        context=ConnectionContext(ip_context=IpContext(src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])),
    )  # fmt: skip


SOON = Timestamp.from_seconds(time.time() + 600)


async def outcome(chain, connection, *preferences):
    """Ask and close; what is raised is an error that tells a person something, or nothing is."""
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=list(preferences))
    deadline, raised = asyncio.get_running_loop().time() + 5, []
    try:
        answer = await chain.request(Call(codec.clone(request), deadline=deadline, target="unix:///nowhere"))
        request = NetworkServiceRequest(connection=answer)
    except MeshError as error:
        raised.append(error)
    try:
        await chain.close(Call(request, deadline=deadline, target="unix:///nowhere"))
    except MeshError as error:
        raised.append(error)
    for error in raised:
        assert not isinstance(error, Internal)
        assert len(str(error)) < 4_000
        assert str(error).isprintable()


SETTINGS = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)


@SETTINGS
@hypothesis.given(changes=MUTATIONS, preference=MECHANISMS)
def test_whatever_a_request_holds_an_endpoint_answers_with_an_error_of_the_mesh(changes, preference):
    async def work():
        identity = identity_of(Authority.create("test.mesh"), "nse")
        elements = [Point2PointIpam(["10.0.0.0/24"]), Mechanisms({"KERNEL": [KernelServer()]})]
        async with endpoint("nse", identity, elements) as server:
            await outcome(server.chain, changed(well_formed(), changes), preference)
            assert len(server.begin) == 0

    asyncio.run(work())


@SETTINGS
@hypothesis.given(changes=MUTATIONS, preference=MECHANISMS)
def test_whatever_a_request_holds_a_manager_answers_with_an_error_of_the_mesh(changes, preference):
    async def work():
        identity = identity_of(Authority.create("test.mesh"), "nsmgr")
        async with Pool(identity, dial_timeout=0.2) as pool:
            manager = nsmgr("nsmgr", identity, pool, own_url="unix:///nowhere", registry_url=None)
            await outcome(manager.connections.chain, changed(well_formed(), changes), preference)
            await manager.aclose()

    asyncio.run(work())


@SETTINGS
@hypothesis.given(
    kind=st.sampled_from(sorted(GOOD)),
    changes=MUTATIONS,
    parameters=st.dictionaries(KEYS, HOSTILE, max_size=3),
    answer=MUTATIONS,
)
def test_whatever_a_request_or_an_answer_holds_a_forwarder_answers_with_an_error_of_the_mesh(
    kind, changes, parameters, answer
):
    async def work():
        far, plane = Answers(), FakeDataplane()
        far.changes = {name: value for name, value in answer.items() if name not in ("id", "path")}
        identity = identity_of(Authority.create("test.mesh"), "forwarder")
        with pytest.MonkeyPatch.context() as patched:
            async with Pool(identity, dial_timeout=0.2) as pool:
                own = ipaddress.ip_address("172.16.1.1")
                forwarder = forwarder_with(plane, identity, pool, far, own, patched)
                asked = well_formed(kind)
                asked.mechanism.parameters = {**asked.mechanism.parameters, **parameters}
                async with forwarder:
                    await outcome(forwarder.chain, changed(asked, changes))
                    assert plane.wires == {}

    asyncio.run(work())


@SETTINGS
@hypothesis.given(changes=MUTATIONS)
def test_whatever_an_answer_holds_a_client_is_told_an_error_of_the_mesh(changes):
    async def work():
        far = Answers()
        far.changes = changes
        async with client("client", [], far, url="unix:///nowhere") as chain:
            await outcome(chain, Connection(id="c", network_service="icmp"))

    asyncio.run(work())


PARAMETERS = [
    ("WIREGUARD", {"src_ip": "127.0.0.1"}), ("WIREGUARD", {"src_ip": "0.0.0.0"}), ("WIREGUARD", {"src_ip": "::1"}),
    ("WIREGUARD", {"src_ip": "::ffff:127.0.0.1"}), ("WIREGUARD", {"src_ip": "224.0.0.1"}),
    ("WIREGUARD", {"src_ip": "255.255.255.255"}), ("WIREGUARD", {"src_ip": "169.254.169.254"}),
    ("WIREGUARD", {"src_port": "0"}), ("WIREGUARD", {"src_port": "65536"}), ("WIREGUARD", {"src_port": "9" * 5_000}),
    ("WIREGUARD", {"src_public_key": base64.b64encode(bytes(32)).decode()}),
    ("WIREGUARD", {"src_public_key": base64.b64encode(bytes([1, *bytes(31)])).decode()}),
    ("WIREGUARD", {"src_public_key": base64.b64encode(bytes(31)).decode()}), ("WIREGUARD", {"src_public_key": "=" * 44}),
    ("WIREGUARD", {"MTU": "1"}), ("WIREGUARD", {"MTU": "1000000000"}), ("WIREGUARD", {"MTU": "-1"}), ("WIREGUARD", {"MTU": "big"}),
    ("VXLAN", {"src_ip": "127.0.0.1"}), ("VXLAN", {"src_ip": "239.1.1.1"}), ("VXLAN", {"src_ip": "fe80::1"}),
    ("VXLAN", {"vni": "0"}), ("VXLAN", {"vni": "16777216"}), ("VXLAN", {"vni": "9" * 5_000}), ("VXLAN", {"src_port": "0"}),
    ("VXLAN", {"MTU": "67"}), ("VXLAN", {"orig_src_ip": "nowhere"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "parameters"), PARAMETERS)
async def test_no_tunnel_goes_where_no_node_can_be(kind, parameters, monkeypatch):
    plane, identity = FakeDataplane(), identity_of(Authority.create("test.mesh"), "forwarder")
    async with Pool(identity, dial_timeout=0.2) as pool:
        own = ipaddress.ip_address("172.16.1.1")
        async with forwarder_with(plane, identity, pool, Answers(), own, monkeypatch) as forwarder:
            honest, hostile = well_formed(kind), well_formed(kind)
            hostile.mechanism.parameters = {**hostile.mechanism.parameters, **parameters}
            await forwarder.chain.request(
                Call(NetworkServiceRequest(connection=dataclasses.replace(honest, id="c")), target="unix:///x")
            )
            assert len(plane.wires) == 1, "an honest one is made"
            await forwarder.chain.close(Call(NetworkServiceRequest(connection=honest)))
            with pytest.raises(InvalidRequest):
                await forwarder.chain.request(Call(NetworkServiceRequest(connection=hostile), target="unix:///x"))
            assert plane.wires == {}


@pytest.mark.parametrize(
    "text", [", " * 30_000 + "x", "[a]," * 30_000 + "[", " " * 200_000 + "]", "[" + "a," * 50_000 + "x"]
)
def test_groups_are_read_in_time(text):
    begin = time.monotonic()
    with pytest.raises(ValueError):
        parse_groups(text)
    assert time.monotonic() - begin < 1


# --- what an operator sees


class Records:
    """A registry in which somebody put names."""

    def __init__(self, record):
        self.record = record

    async def find(self, call):
        yield [Found(self.record)]


@pytest.mark.parametrize("text", CONTROLS)
async def test_a_terminal_is_shown_names_of_a_mesh_escaped(text, capsys):
    parsed = argparse.Namespace(registry="unix:///x", watch=False, json=False)
    await find._show(Records(NetworkService(name=text, payload=text)), NetworkService(), parsed)
    record = NetworkServiceEndpoint(name=text, network_service_names=[text], url=text)
    await find._show(Records(record), NetworkServiceEndpoint(), parsed)
    cli.show({"event": "wire up", "component": text, "interface": text, "endpoint": text, "addresses": [text], "ms": 1})
    cli.show({"event": "ended", "component": text, "reason": text})
    wire = {"client": "client", "interface": text, "mechanism": text, "state": "UP", "service": text, "endpoint": text,
            "src_ips": [text], "dst_ips": [text], "path": [text]}  # fmt: skip
    component = {"name": "client", "node": "node", "command": "nsc", "state": text, "pid": 1, "last_warning": text}
    status = {"nodes": [{"name": "node", "address": ""}], "links": [], "components": [component], "wires": [wire]}
    told = capsys.readouterr()
    lines = [*told.out.splitlines(), *told.err.splitlines(), *tree(status)]
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines)


async def test_a_registry_keeps_no_text_that_a_terminal_would_obey(target):
    """Neither by a manager nor at the registry itself, if that can be reached."""
    async with Attacker(target) as attacker:
        for text in CONTROLS:
            for record in (
                NetworkService(name=f"evil{text}"),
                NetworkService(name="evil", matches=[Match(source_selector={"app": text})]),
                NetworkServiceEndpoint(name=f"evil{text}", network_service_names=["evil"], url="tcp://127.0.0.1:9"),
                NetworkServiceEndpoint(name="evil", network_service_names=[text], url="tcp://127.0.0.1:9"),
                NetworkServiceEndpoint(name="evil", network_service_labels={"evil": NetworkServiceLabels({"a": text})}),
            ):
                with pytest.raises(MeshError, match="control or format character") as raised:
                    await attacker.register(record)
                assert str(raised.value).isprintable()
