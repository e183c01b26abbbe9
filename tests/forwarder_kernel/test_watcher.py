"""What the kernel's news make of wires, with a kernel that is none."""

import asyncio
import socket

import pytest

from nsm.apis.connection import Connection, Mechanism, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Refused
from nsm.chains.elements.monitor import REPORTER
from nsm.chains.forwarding.dataplane import LIVE
from nsm.chains.forwarding.keep import Keep, Report
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.netlink import News
from nsm.forwarder_kernel.live_wire import LiveEnd, LiveWire
from nsm.forwarder_kernel.repair import Repair
from nsm.forwarder_kernel.watcher import Watcher

CLIENTS, ENDPOINTS, INDEX = 3, 4, 1 << 20
CHANGED_LINK, DELETED_LINK, DELETED_ROUTE, END_OF_NAMESPACE = 16, 17, 25, 89
DOWN = Repair("link", "link down", "set up", ())


class Kernel:
    """Reports what a test says; a stand-in for dataplane and listener."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.news, self.reports, self.looks, self.remade = [], [], [], []
        self.can_remake = True
        self.looked = asyncio.Event()

    async def listen(self):
        return self

    def fileno(self):
        return self.ours.fileno()

    def read(self, most):
        while self.news_wait():
            pass
        news, self.news = self.news, []
        return news

    def news_wait(self):
        try:
            return self.ours.recv(100)
        except BlockingIOError:
            return b""

    def close(self):
        self.ours.close()
        self.theirs.close()

    def tell(self, kind, number=CLIENTS, index=INDEX, *reports):
        self.reports += reports
        self.news.append(News(number, index, 0, kind, 0, bytes(32)))
        self.theirs.send(b"!")

    async def mend(self, live, *, do):
        self.looks.append(do)
        self.looked.set()
        return self.reports.pop(0) if self.reports else Report()

    async def remake(self, live):
        self.remade.append(live)
        return self.can_remake


class Wires(Element):
    """Gives each connection a wire, and hears which states are reported of it."""

    def __init__(self):
        self.states, self.causes, self.closed = [], [], asyncio.Event()

    async def request(self, call, rest):
        if call.live.get(LIVE) is None:
            ends = [
                LiveEnd(None, KernelInterface("/ns", "nsm-1"), INDEX, "", number=CLIENTS),
                LiveEnd(None, KernelInterface("/ns", "nse-1"), INDEX + 1, "", number=ENDPOINTS),
            ]
            near, far = (end.place for end in ends)
            wire = Wire(End(near), End(far, is_endpoints=True), 0, arp=True)
            call.live.put(LIVE, LiveWire(wire, tuple(ends), "nsm f c", None))
            call.live.put(REPORTER, self)
        return await rest.request(call)

    def report(self, connection_id, state, cause=None):
        assert connection_id == "c"
        if state is not None:
            self.states.append(state)
        self.causes.append(cause)

    async def close(self, call, rest):
        call.live.pop(LIVE)
        self.closed.set()
        await rest.close(call)


def call():
    mechanism = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})
    connection = Connection(
        id="c", network_service="web", network_service_endpoint_name="nse-1", payload="IP", mechanism=mechanism
    )
    return Call(NetworkServiceRequest(connection=connection))


class World:
    def __init__(self):
        self.kernel, self.wires, self.begin = Kernel(), Wires(), Begin()
        self.watcher = Watcher(self.kernel)
        self.keep = Keep(self.watcher)
        self.chain = Chain([self.begin, self.keep, self.wires])

    async def __aenter__(self):
        await self.chain.request(call())
        return self

    async def __aexit__(self, *_):
        await self.chain.aclose()

    async def looks(self, count):
        async with asyncio.timeout(5):
            while len(self.kernel.looks) < count:
                self.kernel.looked.clear()
                await self.kernel.looked.wait()


async def test_what_was_reported_while_a_wire_was_made_is_no_reason_to_look_at_it():
    world = World()
    world.kernel.tell(DELETED_ROUTE)
    async with world:
        world.kernel.tell(DELETED_ROUTE, CLIENTS, INDEX)
        await world.looks(1)
    assert world.kernel.looks == [True]


async def test_somebody_else_s_links_are_not_looked_at():
    async with World() as world:
        world.kernel.tell(DELETED_ROUTE, CLIENTS, INDEX + 9)
        world.kernel.tell(DELETED_ROUTE, CLIENTS + 9, INDEX)
        world.kernel.tell(DELETED_ROUTE, ENDPOINTS, INDEX + 1)
        await world.looks(1)
    assert world.kernel.looks == [True]


async def test_a_link_that_is_set_down_is_left_so_for_a_moment_in_which_it_can_be_renamed():
    """And in which a ping of five packets a second notices (heal facts 11.12); not if it is deleted meanwhile."""
    clock = asyncio.get_running_loop().time
    async with World() as world:
        began = clock()
        world.kernel.tell(CHANGED_LINK, CLIENTS, INDEX, Report(repairs=[("nsm-1", DOWN)]))
        await world.looks(1)
        assert clock() - began > 0.25
        began = clock()
        world.kernel.tell(CHANGED_LINK)
        world.kernel.tell(DELETED_LINK, CLIENTS, INDEX, Report(is_gone=True))
        await world.looks(2)
        assert clock() - began < 0.25


@pytest.mark.parametrize(("number", "whose"), [(CLIENTS, "client's"), (ENDPOINTS, "endpoint's")])
async def test_a_namespace_that_ends_takes_its_connection_with_it_and_the_other_side_is_told_first(
    number, whose, capsys
):
    async with World() as world:
        world.kernel.tell(END_OF_NAMESPACE, number, 0)
        await asyncio.wait_for(world.wires.closed.wait(), 5)
        assert world.wires.states == [State.DOWN]
        assert (len(world.keep), len(world.watcher)) == (0, 0)
    assert f"{whose} network namespace gone" in capsys.readouterr().out
    assert world.kernel.looks == []


async def test_a_wire_that_is_being_closed_is_not_fought_for():
    async with World() as world:
        await world.chain.close(call())
        world.kernel.tell(DELETED_LINK, CLIENTS, INDEX)
        world.kernel.tell(DELETED_LINK, ENDPOINTS, INDEX + 1)
        async with asyncio.timeout(5):
            while world.kernel.news:
                await asyncio.sleep(0.001)
        assert (len(world.keep), len(world.watcher)) == (0, 0)
    assert world.kernel.looks == []


async def test_a_forwarder_that_may_not_listen_says_so_once_and_makes_wires_anyway(capsys):
    world = World()

    async def refuse():
        raise Refused("this forwarder does not have CAP_NET_BROADCAST")

    world.kernel.listen = refuse
    async with world:
        await world.chain.request(call())
    world.kernel.close()
    assert capsys.readouterr().out.count("wires are not watched for changes") == 1
