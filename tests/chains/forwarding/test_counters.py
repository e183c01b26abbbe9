"""The traffic of wires, by their connections, on a dataplane in memory."""

import asyncio
from dataclasses import replace

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.forwarding.counters import CLIENT, SERVER, Counters
from nsm.chains.forwarding.dataplane import LIVE
from nsm.chains.forwarding.sides import Breakout, KernelInterface
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.testing import FakeDataplane
from nsm.chains.testing.dataplane import NO_TRAFFIC

NEAR, FAR = KernelInterface("/ns/a", "nsm-1"), KernelInterface("/ns/b", "nse-1")


class Makes(Element):
    def __init__(self, dataplane, *sides):
        self.dataplane, self.wire = dataplane, Wire(*map(End, sides), 0, arp=False)

    async def request(self, call, rest):
        if call.live.get(LIVE) is None:
            call.live.put(LIVE, await self.dataplane.create(self.wire, call.live.connection_id))
        return await rest.request(call)


def call():
    path = Path(index=1, path_segments=[PathSegment("client", "nsc-0"), PathSegment("forwarder", "c")])
    connection = Connection(id="c", network_service="web", path=path, mechanism=Mechanism(type="KERNEL"))
    return Call(NetworkServiceRequest(connection=connection))


@pytest.mark.parametrize(
    ("sides", "counted"),
    [
        ((NEAR, FAR), {CLIENT: ("nsm-1", "nse-1"), SERVER: ("nsm-1", "nse-1")}),
        ((NEAR, Breakout("eth1", 5)), {CLIENT: ("nsm-1", "")}),
        ((Breakout("eth1", 5), FAR), {SERVER: ("", "nse-1")}),
    ],
)
async def test_each_side_on_this_node_is_counted_with_the_names_of_its_connection(sides, counted):
    dataplane, begin = FakeDataplane(), Begin()
    counters = Counters(dataplane)
    async with Chain([begin, counters, Makes(dataplane, *sides)]) as chain:
        await chain.request(call())
        await chain.request(call())
        dataplane.wires["c"].counts = [replace(NO_TRAFFIC, rx_bytes=1), replace(NO_TRAFFIC, rx_bytes=2)]
        found = await counters.read()
        assert {each.side: (each.labels.nsc_interface, each.labels.nse_interface) for each in found} == counted
        assert [each.traffic.rx_bytes for each in found] == [{CLIENT: 1, SERVER: 2}[side] for side in counted]
        assert {(each.labels.connection_id, each.labels.network_service, each.labels.nsc) for each in found} == {
            ("c", "web", "client")
        }
        await chain.close(call())
        assert (await counters.read(), len(counters)) == ([], 0)


async def test_the_answer_to_a_refresh_has_what_passed_by_then():
    """A request that makes a wire does not wait for counters; a view shows when packets passed last."""
    dataplane = FakeDataplane()
    async with Chain([Begin(), Counters(dataplane, interval=15.0), Makes(dataplane, NEAR, FAR)]) as chain:
        first = await chain.request(call())
        assert "server_rx_bytes" not in first.path.path_segments[1].metrics
        sent = replace(NO_TRAFFIC, tx_bytes=700, tx_packets=7)
        dataplane.wires["c"].counts = [sent, replace(NO_TRAFFIC, rx_bytes=690)]
        await asyncio.sleep(16)
        metrics = (await chain.request(call())).path.path_segments[1].metrics
        assert (metrics["server_rx_bytes"], metrics["server_rx_packets"], metrics["client_tx_bytes"]) == (
            "700",
            "7",
            "690",
        )
        await chain.close(call())
