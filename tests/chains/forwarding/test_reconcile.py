"""Wires of an earlier process, on a dataplane in memory: who keeps them, and when they go."""

import asyncio

from nsm.chains.forwarding.reconcile import Reconcile
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.testing import FakeDataplane


def wire(name):
    return Wire(End(KernelInterface("/ns/a", name)), End(KernelInterface("/ns/b", name)), 0, arp=False)


async def left_by_an_earlier_process(*names):
    before = FakeDataplane()
    for name in names:
        await before.create(wire(name), name)
    return before.successor()


async def test_what_nobody_claims_and_no_workload_uses_is_removed_in_time_and_the_rest_with_its_orphans():
    dataplane = await left_by_an_earlier_process("claimed", "deserted", "used")
    dataplane.wires["deserted"].is_used = False
    async with Reconcile(dataplane, claim_within=600, orphan_lifetime=7200):
        await dataplane.create(wire("claimed"), "claimed")
        await asyncio.sleep(599)
        assert list(dataplane.wires) == ["claimed", "deserted", "used"]
        await asyncio.sleep(2)
        assert list(dataplane.wires) == ["claimed", "used"]
        await asyncio.sleep(6500)
        assert list(dataplane.wires) == ["claimed", "used"]
        await asyncio.sleep(200)
        assert list(dataplane.wires) == ["claimed"]


async def test_a_wire_whose_workload_ends_later_is_removed_then():
    dataplane = await left_by_an_earlier_process("used")
    async with Reconcile(dataplane, claim_within=600, orphan_lifetime=7200):
        await asyncio.sleep(700)
        dataplane.wires["used"].is_used = False
        await asyncio.sleep(60)
        assert dataplane.wires == {}
