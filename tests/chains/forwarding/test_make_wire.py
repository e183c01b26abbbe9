"""The element that makes wires, on a dataplane in memory."""

import asyncio
from dataclasses import dataclass
from typing import ClassVar

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, InvalidRequest, Unavailable, Unsupported
from nsm.chains.elements import idle
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.forwarding.make_wire import ACCEPT_RA, MakeWire
from nsm.chains.forwarding.sides import (
    CLIENT_SIDE,
    ENDPOINT_SIDE,
    KernelInterface,
    Memif,
    Nothing,
    Side,
    VirtualFunction,
)
from nsm.chains.testing import FakeDataplane


def kernel(name="near", path="/ns/near", **parameters):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": name, "inodeURL": f"file://{path}", **parameters})


def call(mechanism=None, addresses=(), **labels):
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=list(addresses)))
    connection = Connection(
        id="c", payload="IP", mechanism=mechanism or kernel(), labels=labels, context=context,
        path=Path(index=0, path_segments=[PathSegment(name="forwarder", id="c")]),
    )  # fmt: skip
    return Call(NetworkServiceRequest(connection=connection))


class Far(Element):
    """The endpoint's mechanism, by way of the client chain; `error` is raised instead of closing."""

    def __init__(self, mechanism=None, error=None):
        self.mechanism, self.error = mechanism or kernel("far", "/ns/far"), error
        self.labels, self.gate = {}, asyncio.Event()
        self.gate.set()
        self.closing = asyncio.Event()

    async def request(self, call, rest):
        call.connection.mechanism = self.mechanism
        call.connection.labels |= self.labels
        return await rest.request(call)

    async def close(self, call, rest):
        self.closing.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        await rest.close(call)


class World:
    def __init__(self, far=None, dataplane=None, *, before=()):
        self.far, self.begin, self.translation = far or Far(), Begin(), MechanismTranslation()
        self.dataplane = FakeDataplane() if dataplane is None else dataplane
        makes = MakeWire(self.dataplane, self.translation)
        self.chain = Chain([self.begin, *before, makes, self.translation, self.far])

    @property
    def wire(self):
        (live,) = self.dataplane.wires.values()
        return live.wire


async def test_a_wire_is_made_once_changed_if_its_connection_is_and_removed_with_it():
    world = World()
    await world.chain.request(call(addresses=["10.0.0.1/32"]))
    await world.chain.request(call(addresses=["10.0.0.1/32"]))
    await world.chain.request(call(addresses=["10.0.0.9/32"]))
    await world.chain.close(call())
    assert world.dataplane.calls == [("create", "c"), ("change", "c"), ("remove", "c")]


SIDES = [
    (kernel(), KernelInterface("/ns/near", "near")),
    (kernel(tokenID="sriov-1"), KernelInterface("/ns/near", "near", "sriov-1")),
    (Mechanism(cls="LOCAL", type="MEMIF", parameters={"socketfile": "@/m"}), Memif("@/m", "")),
    (
        Mechanism(cls="LOCAL", type="VFIO", parameters={"tokenID": "sriov-1", "cgroupDir": "/pod/*"}),
        VirtualFunction("sriov-1", "/pod/*"),
    ),
    (Mechanism(cls="REMOTE", type="NOOP"), Nothing()),
]


@pytest.mark.parametrize(("near", "client"), SIDES)
@pytest.mark.parametrize(("far", "endpoint"), SIDES)
async def test_any_two_sides_are_joined(near, client, far, endpoint):
    """No side has to be of a certain kind: what can be joined is the dataplane's business."""
    world = World(Far(far))
    made = await world.chain.request(call(near))
    assert world.wire.sides == (client, endpoint)
    assert made.mechanism == near


async def test_sides_that_the_dataplane_cannot_join_are_refused_and_nothing_stays():
    world = World(Far(Mechanism(cls="LOCAL", type="MEMIF")), FakeDataplane(kinds=["KERNEL"]))
    with pytest.raises(Unsupported, match="a wire from KERNEL to MEMIF cannot be made here"):
        await world.chain.request(call())
    assert (world.dataplane.wires, len(world.begin)) == ({}, 0)


@dataclass(frozen=True)
class Srv6(Side):
    """A kind of another package."""

    path: str
    kind: ClassVar[str] = "SRV6"


class SetSide(Element):
    """An element of a mechanism that leads elsewhere."""

    def __init__(self, key, side):
        self.key, self.side = key, side

    async def request(self, call, rest):
        call.live.put(self.key, self.side)
        return await rest.request(call)


@pytest.mark.parametrize("key", [CLIENT_SIDE, ENDPOINT_SIDE])
async def test_elements_of_other_packages_bring_sides_of_kinds_that_are_unknown_here(key):
    side, mechanism = Srv6("a::1"), Mechanism(cls="REMOTE", type="SRV6")
    is_near = key is CLIENT_SIDE
    world = World(Far() if is_near else Far(mechanism), before=[SetSide(key, side)])
    await world.chain.request(call(mechanism if is_near else kernel()))
    assert world.wire.sides[0 if is_near else 1] is side


async def test_a_side_of_another_mechanism_than_the_chosen_one_does_not_count():
    """The endpoint was reached by a tunnel before, and now it is not."""
    world = World(Far(Mechanism(cls="REMOTE", type="VXLAN")), before=[SetSide(ENDPOINT_SIDE, Srv6("a::1"))])
    with pytest.raises(Unsupported, match="a wire from KERNEL to VXLAN cannot be made here"):
        await world.chain.request(call())


async def test_an_invalid_interface_of_the_client_is_refused_before_the_endpoint_is_requested():
    world = World()
    with pytest.raises(InvalidRequest, match="'' is not a network namespace; expected one such as file:///proc/1234"):
        await world.chain.request(call(Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})))
    with pytest.raises(InvalidRequest, match="name"):
        await world.chain.request(call(kernel("a/b")))
    assert world.dataplane.calls == []


@pytest.mark.parametrize("error", [None, Unavailable("it is gone")])
async def test_a_wire_is_removed_while_the_endpoint_closes_and_also_if_that_fails(error):
    world = World(Far(error=error))
    await world.chain.request(call())
    world.far.gate.clear()
    closing = asyncio.ensure_future(world.chain.close(call()))
    await world.far.closing.wait()
    while world.dataplane.wires:
        await asyncio.sleep(0)
    world.far.gate.set()
    if error is None:
        await closing
    else:
        with pytest.raises(Unavailable, match="it is gone"):
            await closing


@pytest.mark.parametrize("wanted", [True, False])
async def test_only_the_client_itself_says_that_it_follows_router_advertisements(wanted):
    world = World()
    world.far.labels = {ACCEPT_RA: "true", "app": "web"}
    labels = {ACCEPT_RA: "true"} if wanted else {}
    connection = await world.chain.request(call(**labels))
    assert world.wire.accept_ra == wanted
    assert connection.labels == {"app": "web", **labels}


class Waits(Element):
    """Keeps the answer back."""

    async def request(self, call, rest):
        connection = await rest.request(call)
        await asyncio.Event().wait()
        return connection


@pytest.mark.parametrize("stood", [False, True])
async def test_a_request_that_is_cancelled_once_the_wire_is_made_leaves_none_but_one_that_stood_before(stood):
    """A forwarder that was started again adopts the wire of a connection; the first refresh may fail behind that."""
    world = World(before=[Waits()])
    request = call()
    names = ["forwarder", "endpoint"] if stood else ["forwarder"]
    request.connection.path = Path(path_segments=[PathSegment(name=each, id=each) for each in names])
    asking = asyncio.ensure_future(world.chain.request(request))
    while not world.dataplane.wires:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert (len(world.dataplane.wires), len(world.begin)) == (int(stood), 0)


async def test_a_wire_that_vanished_is_made_again_and_one_whose_other_end_is_elsewhere_now_too():
    world = World()
    await world.chain.request(call())
    world.dataplane.wires.clear()
    await world.chain.request(call())
    world.far.mechanism = kernel("elsewhere", "/ns/far")
    await world.chain.request(call())
    assert world.dataplane.calls == [("create", "c"), ("create", "c"), ("remove", "c"), ("create", "c")]
    assert world.wire.endpoint.side.interface == "elsewhere"


async def test_an_idle_connection_keeps_no_namespace_open_and_its_next_request_finds_the_wire():
    """By another path, as each request brings the descriptor anew."""
    world = World()
    await world.chain.request(call())
    await asyncio.sleep(idle.IDLE_AFTER * 2)
    (live,) = world.dataplane.wires.values()
    assert not live.is_held
    await world.chain.request(call(kernel(path="/ns/again")))
    assert live.is_held
    assert world.dataplane.calls == [("create", "c")]
    assert world.wire.client.side.path == "/ns/again"


async def test_a_client_that_comes_back_with_another_connection_ends_the_former_one():
    """Its wire has the name that the new one wants, and both are the same client's."""
    world = World()

    async def request(connection_id):
        asking = call()
        asking.connection.id, asking.owner = connection_id, ("spiffe://test.mesh/client",)
        asking.connection.path = Path(
            index=1, path_segments=[PathSegment("nsc", "nsc-0"), PathSegment("forwarder", connection_id)]
        )
        await world.chain.request(asking)

    await request("before")
    await request("after")
    async with asyncio.timeout(5):
        while len(world.begin) > 1:
            await asyncio.sleep(0)
    assert list(world.dataplane.wires) == ["after"]


async def test_the_dataplane_completes_the_clients_mechanism_and_the_path():
    world = World()
    world.dataplane.parameters = {"pciAddress": "0000:01:00.1"}
    made = await world.chain.request(call())
    assert made.mechanism.parameters["pciAddress"] == "0000:01:00.1"
    assert made.path.path_segments[0].metrics == {"server_interface": "KERNEL/near", "client_interface": "KERNEL/far"}


async def test_a_wire_that_cannot_be_changed_keeps_no_namespace_open():
    """The workload of a failed request may end before there is another one."""
    world = World()
    await world.chain.request(call())
    await asyncio.sleep(idle.IDLE_AFTER * 2)
    (live,) = world.dataplane.wires.values()

    async def change(*_):
        raise Unavailable("the kernel is busy")

    world.dataplane.change = change
    with pytest.raises(Unavailable):
        await world.chain.request(call(addresses=["10.0.0.9/32"]))
    assert live.is_held
    await asyncio.sleep(idle.IDLE_AFTER * 2)
    assert not live.is_held
