"""One MTU for all wires of a vL3."""

import asyncio

from nsm.apis.connection import State
from nsm.apis.connectioncontext import ConnectionContext
from nsm.chains.core import Begin, Chain, Element
from nsm.chains.elements.monitor import Monitor
from nsm.chains.elements.vl3_mtu import LARGEST, SmallestMtu, Vl3Mtu
from nsm.chains.testing import Record, call


class Wire(Element):
    """A dataplane whose wire has an MTU of its own."""

    def __init__(self, mtus):
        self.mtus = mtus

    async def request(self, call, rest):
        wanted = call.connection.context.mtu
        call.connection.context.mtu = min(wanted, self.mtus.get(call.connection.id, wanted))
        return await rest.request(call)


async def ask(chain, connection_id, mtu=0):
    connection = await chain.request(call(connection_id, context=ConnectionContext(mtu=mtu)))
    return connection.context.mtu


async def test_a_wire_with_a_small_mtu_lowers_that_of_later_ones():
    chain = Chain([Begin(), Vl3Mtu(SmallestMtu()), Wire({"tunnel": 1420})])
    assert await ask(chain, "local") == LARGEST
    assert await ask(chain, "small", 1500) == 1500
    assert await ask(chain, "tunnel") == 1420
    assert await ask(chain, "another") == 1420
    assert await ask(chain, "larger", 9000) == 1420


async def test_clients_with_a_larger_mtu_are_asked_to_request_again():
    monitor = Monitor()
    chain = Chain([Begin(), monitor, Vl3Mtu(SmallestMtu()), Wire({"tunnel": 1420})])
    await ask(chain, "local")
    await ask(chain, "tunnel")
    assert {each.id: each.state for each in monitor._connections.values()} == {
        "local": State.REFRESH_REQUESTED,
        "tunnel": State.UP,
    }
    assert await ask(chain, "local", LARGEST) == 1420
    assert monitor._connections["local"].state == State.UP


async def test_an_endpoint_s_own_wires_request_again_themselves():
    smallest, seen = SmallestMtu(), Record()
    server = Chain([Begin(), Vl3Mtu(smallest), Wire({"tunnel": 1420})])
    client = Chain([Begin(), Vl3Mtu(smallest, requests=True), seen])
    await ask(client, "to-another")
    await ask(server, "tunnel")
    await asyncio.sleep(1)
    assert [each.connection.context.mtu for each in seen.requests] == [LARGEST, 1420]


async def test_a_closed_connection_is_not_asked():
    smallest = SmallestMtu()
    chain = Chain([Begin(), Vl3Mtu(smallest, requests=True)])
    await ask(chain, "a")
    await chain.close(call("a"))
    server = Chain([Begin(), Vl3Mtu(smallest), Wire({"tunnel": 1420})])
    assert await ask(server, "tunnel") == 1420
