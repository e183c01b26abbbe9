"""Many calls at once, most of which come to nothing: when they are over nothing of them is left in memory.

Not even until the garbage collector comes by, which is seldom: what waits for it keeps the memory around it, too.
"""

import asyncio
import gc
from contextlib import suppress

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Begin, Call, Chain, Element, MeshError, Refused, RegistryCall, RegistryChain, Store
from nsm.chains.core.registry import RegistryElement
from nsm.chains.core.tasks import both_to_the_end, together
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.try_candidates import first_success
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.transport.turns import Place, Turns


def left(*kinds):
    """How many objects of `kinds` there are, with those that nobody can reach."""
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())


class Slow(Element):
    """Takes back what it did, and its time for that."""

    def __init__(self):
        self.is_taking_back = asyncio.Event()
        self.may_take_back = asyncio.Event()

    async def request(self, call, rest):
        async def take_back():
            assert call.connection
            self.is_taking_back.set()
            await self.may_take_back.wait()

        call.undo.add(take_back)
        if call.connection.id in ("refused", "tried"):
            self.may_take_back.set()
            raise Refused("no")
        if call.connection.id == "given-up":
            await asyncio.Event().wait()
        return await rest.request(call)


class Registers(RegistryElement):
    async def register(self, call, rest):
        call.undo.add(lambda: call.record and None)
        if call.record.name == "refused":
            raise Refused("no")
        return await rest.register(call)


class Tries(Element):
    """Asks two that refuse, one after the other, if it is to be tried."""

    async def request(self, call, rest):
        if call.connection.id != "tried":
            return await rest.request(call)
        return (await first_success("tries", [NetworkServiceEndpoint(name="a")] * 2, 2, call, rest))[1]


async def refuse():
    raise Refused("no")


def request(name):
    connection, preferences = Connection(id=name, network_service="s"), [Mechanism(cls="LOCAL", type="KERNEL")]
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=preferences))


async def given_up(chain, slow):
    """A client that gives up, and then ends its connection while that is dealt with."""
    asking = asyncio.ensure_future(chain.request(request("given-up")))
    await asyncio.sleep(0)
    asking.cancel()
    await slow.is_taking_back.wait()
    asking.cancel()
    await asyncio.sleep(0)
    slow.may_take_back.set()
    with suppress(asyncio.CancelledError):
        await asking


async def each_once():
    slow = Slow()
    wanted = Mechanisms({"KERNEL": [slow]})
    chain, registry = Chain([Begin(), Tries(), slow, wanted]), RegistryChain([RegistryBegin(), Registers()])
    await given_up(chain, slow)
    for name in ("refused", "tried"):
        with suppress(MeshError):
            await chain.request(request(name))
    with suppress(MeshError):
        await Chain([Begin(), wanted]).request(request("refused"))
    await chain.request(request("made"))
    await chain.close(request("made"))
    for name in ("refused", "made"):
        with suppress(MeshError):
            await registry.register(RegistryCall(NetworkServiceEndpoint(name=name)))
    await registry.unregister(RegistryCall(NetworkServiceEndpoint(name="made")))
    for both in (together, both_to_the_end):
        with suppress(MeshError):
            await both(refuse(), asyncio.sleep(0))


async def test_calls_that_were_given_up_refused_or_closed_leave_nothing_in_reference_cycles():
    kinds = Store, Call, RegistryCall, MeshError, asyncio.CancelledError
    await each_once()
    gc.collect()
    gc.disable()
    try:
        before = left(*kinds)
        for _ in range(3):
            await each_once()
        assert left(*kinds) == before
    finally:
        gc.enable()


async def test_a_watch_that_stays_keeps_nothing_of_the_calls_beside_it():
    """A client's monitor holds its place for as long as it likes, and a hundred bytes stayed of each later call."""
    share, places = Turns(calls=32).share("watches"), []
    share.begin(lambda place: places.append(place) or True)
    before = left(Place)
    for _ in range(1000):
        share.begin(lambda place: places.append(place) or True)
        places.pop().leave()
    assert left(Place) == before
