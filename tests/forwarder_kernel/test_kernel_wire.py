"""The element that makes wires, with a dataplane that is none."""

import asyncio

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.forwarder_kernel.devices import Veth
from nsm.forwarder_kernel.kernel_wire import ACCEPT_RA, KernelWire
from nsm.forwarder_kernel.live_wire import LiveWire

FAR = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "far", "inodeURL": "file:///ns/far"})


class Dataplane:
    """Takes a while to remove a pair, as the kernel does."""

    def __init__(self):
        self.pairs = []
        self.removing = asyncio.Event()

    async def create(self, wire, connection_id, ahead=None, client=None):
        self.pairs.append(LiveWire(wire, (), connection_id, Veth()))
        return self.pairs[-1]

    async def remove(self, connection_id):
        self.removing.set()
        await asyncio.sleep(0.02)
        self.pairs = [pair for pair in self.pairs if pair.alias != connection_id]


class Endpoint(Element):
    """Chooses its mechanism; its Close waits for the removal to have begun."""

    def __init__(self, far_side, dataplane, error=None):
        self.far_side, self.dataplane, self.error = far_side, dataplane, error
        self.labels = {}

    async def request(self, call, rest):
        call.live.put(self.far_side._far, FAR)
        connection = await rest.request(call)
        connection.labels |= self.labels
        return connection

    async def close(self, call, rest):
        await asyncio.wait_for(self.dataplane.removing.wait(), 1)
        if self.error is not None:
            raise self.error
        await rest.close(call)


def call(**labels):
    near = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "near", "inodeURL": "file:///ns/near"})
    return Call(NetworkServiceRequest(connection=Connection(id="c", payload="IP", mechanism=near, labels=labels)))


@pytest.mark.parametrize("error", [None, Unavailable("it is gone")])
async def test_a_wire_is_removed_while_the_endpoint_closes_and_also_if_that_fails(error):
    dataplane, far_side = Dataplane(), MechanismTranslation()
    chain = Chain([Begin(), KernelWire(dataplane, far_side), Endpoint(far_side, dataplane, error)])
    await chain.request(call())
    assert len(dataplane.pairs) == 1
    if error is None:
        await chain.close(call())
    else:
        with pytest.raises(Unavailable, match="it is gone"):
            await chain.close(call())
    assert dataplane.pairs == []


@pytest.mark.parametrize("wanted", [True, False])
async def test_only_the_client_itself_says_that_it_follows_router_advertisements(wanted):
    dataplane, far_side = Dataplane(), MechanismTranslation()
    endpoint = Endpoint(far_side, dataplane)
    endpoint.labels = {ACCEPT_RA: "true", "app": "web"}
    chain = Chain([Begin(), KernelWire(dataplane, far_side), endpoint])
    labels = {ACCEPT_RA: "true"} if wanted else {}
    connection = await chain.request(call(**labels))
    assert [live.wire.accept_ra for live in dataplane.pairs] == [wanted]
    assert connection.labels == {"app": "web", **labels}


@pytest.mark.parametrize("stood", [False, True])
async def test_a_request_that_is_cancelled_once_the_wire_is_made_leaves_none_but_one_that_stood_before(stood):
    """A forwarder that was started again adopts the wire of a connection; the first refresh may fail behind that."""
    dataplane, far_side, delay = Dataplane(), MechanismTranslation(), asyncio.Event()

    class Answers(Element):
        async def request(self, call, rest):
            connection = await rest.request(call)
            await delay.wait()
            return connection

    begin = Begin()
    chain = Chain([begin, Answers(), KernelWire(dataplane, far_side), Endpoint(far_side, dataplane)])
    request = call()
    names = ["forwarder", "endpoint"] if stood else ["forwarder"]
    request.connection.path = Path(path_segments=[PathSegment(name=each, id=each) for each in names])
    asking = asyncio.ensure_future(chain.request(request))
    while not dataplane.pairs:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert (len(dataplane.pairs), len(begin)) == (int(stood), 0)
