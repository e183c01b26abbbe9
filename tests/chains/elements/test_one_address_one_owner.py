"""No two wires have one address, whatever clients ask for and however often their endpoint is started again."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from nsm.apis import codec
from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import MeshError, Unavailable
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.addresses import read_interface
from nsm.chains.testing import Fail
from nsm.chains.testing.clock import VirtualTimeLoop
from tests.chains.elements.former import Interfaces, ask, close, start

CLIENTS = "abcde"
PREFIX = "10.0.0.0/28"
STEPS = st.one_of(
    st.tuples(st.sampled_from(["ask", "ask", "refused", "lost", "close", "vanish"]), st.sampled_from(CLIENTS)),
    st.tuples(st.sampled_from(["name"]), st.sampled_from(CLIENTS), st.sampled_from(CLIENTS)),
    st.tuples(st.sampled_from(["restart", "restart", "moved", "later"])),
)


@dataclass
class World:
    """Clients, what each of them was answered last, and the wires that a forwarder has made of it."""

    interfaces: Interfaces = field(default_factory=Interfaces)
    answered: dict = field(default_factory=dict)
    fail: Fail = field(default_factory=lambda: Fail(behind=True))

    def start(self):
        self.endpoint = start(self.interfaces, Point2PointIpam([PREFIX]), behind=[self.fail])

    async def step(self, what, *clients):
        await getattr(self, what)(*clients)
        self.check()

    async def ask(self, client):
        await self._request(client, self.answered.get(client))

    async def refused(self, client):
        """The rest of the way fails after the endpoint has answered."""
        self.fail.errors = [Unavailable("no")]
        await self._request(client, self.answered.get(client))
        self.fail.errors = []

    async def lost(self, client):
        """The answer does not reach the forwarder: the endpoint takes its work for done, and the wire stays."""
        before = self.answered.get(client)
        try:
            await ask(self.endpoint, client, before)
        except MeshError:
            return
        if before is None:
            await close(self.endpoint, client)  # what the forwarder does for a request of which nobody knows

    async def name(self, client, other):
        """It asks for what another one has."""
        theirs = self.answered.get(other)
        if client not in self.answered and theirs is not None:
            await self._request(client, theirs)

    async def close(self, client):
        if self.answered.pop(client, None) is not None:
            await close(self.endpoint, client)
        self.interfaces.remove(client)

    async def vanish(self, client):
        """It dies, and the wire with it; the endpoint is told at the token's end."""
        self.interfaces.remove(client)
        if self.answered.pop(client, None) is not None:
            await close(self.endpoint, client)

    async def restart(self):
        """Another process in the same namespace."""
        await self.endpoint.aclose()
        self.start()

    async def moved(self):
        """In another namespace: the wires' ends are gone with the former one, and clients have to ask for others."""
        await self.endpoint.aclose()
        self.interfaces = Interfaces()
        self.start()
        for client in list(self.answered):
            await self._request(client, self.answered[client])

    async def later(self):
        await asyncio.sleep(30)

    async def _request(self, client, context):
        try:
            answer = await ask(self.endpoint, client, context)
        except Unavailable:  # nothing else: there is room for all
            return
        self.answered[client] = codec.clone(answer)
        self.interfaces.set(client, held(answer))

    def check(self):
        owners = {}
        for client, context in self.answered.items():
            assert len(context.src_ip_addrs) == len(context.dst_ip_addrs) == 1
            for address in held(context):
                assert owners.setdefault(address, client) == client, "one address has two owners"


def held(context: IpContext):
    return [read_interface(text).ip for text in (*context.src_ip_addrs, *context.dst_ip_addrs)]


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=3, max_size=25))
def test_two_clients_never_share_an_address_through_a_chain_of_restarts(steps):
    """Requests, refreshes, closes, refusals, lost answers, and restarts with and without the interfaces of before."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play(steps))


async def play(steps):
    world = World()
    world.start()
    for step in steps:
        await world.step(*step)
    for client in CLIENTS:
        await world.close(client)
    await asyncio.sleep(61)  # what a client named and did not get rests for a minute
    context = await ask(world.endpoint, "last")
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.1/32"], ["10.0.0.0/32"]), "all came back"
