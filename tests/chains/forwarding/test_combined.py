"""Two dataplanes in one forwarder, both in memory: one for virtual functions, and one for everything else."""

from dataclasses import replace

import pytest

from nsm.chains.forwarding.combined import Combined
from nsm.chains.forwarding.sides import KernelInterface, Nothing
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.testing import FakeDataplane
from nsm.chains.testing.dataplane import NO_TRAFFIC


def plain(name="nsm-1"):
    return Wire(End(KernelInterface("/ns/a", name)), End(KernelInterface("/ns/b", name)), 0, arp=False)


def function(name="nsm-1"):
    return Wire(End(KernelInterface("/ns/a", name, "sriov-1")), End(Nothing()), 0, arp=False)


def is_function(wire):
    return any(isinstance(side, KernelInterface) and side.token for side in wire.sides)


@pytest.fixture
def both():
    functions, others = FakeDataplane(), FakeDataplane()
    return functions, others, Combined([(is_function, functions)], others)


async def test_each_wire_is_made_by_the_one_that_it_is_for(both):
    functions, others, combined = both
    lives = [await combined.create(function("vf"), "f"), await combined.create(plain("veth"), "p")]
    assert (list(functions.wires), list(others.wires)) == (["f"], ["p"])
    assert [await combined.resume(live, live.wire) for live in lives] == [True, True]
    await combined.change(lives[1], replace(lives[1].wire, mtu=1400))
    assert others.wires["p"].wire.mtu == 1400
    others.wires["p"].counts = [replace(NO_TRAFFIC, rx_bytes=5)] * 2
    assert [client.rx_bytes for client, _ in await combined.traffic(lives)] == [0, 5]
    for live in lives:
        await combined.let_go(live)
        assert not live.is_held
        await combined.remove(live.connection_id)
    assert (functions.wires, others.wires) == ({}, {})


async def test_a_wire_that_becomes_one_of_the_other_kind_is_not_resumed(both):
    functions, others, combined = both
    live = await combined.create(function(), "c")
    assert not await combined.resume(live, plain())
    await combined.remove("c")
    await combined.create(plain(), "c")
    assert (list(functions.wires), list(others.wires)) == ([], ["c"])


async def test_wires_of_an_earlier_process_are_found_and_removed_wherever_they_are(both):
    functions, others, combined = both
    await combined.create(function("vf"), "f")
    await combined.create(plain("veth"), "p")
    await combined.create(plain("veth2"), "q")
    again = Combined([(is_function, functions.successor())], others.successor())
    assert {each.connection_id: each.is_live for each in await again.owned()} == {"f": False, "p": False, "q": False}
    await again.remove("f")
    await again.remove_former(["p"])
    await again.create(function("vf3"), "q")  # it was the other's before
    assert {each.connection_id for each in await again.owned()} == {"q"}
    assert others.wires == {}
    await again.aclose()
