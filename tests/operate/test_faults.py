"""A mesh that somebody else broke: each fault is found by one command."""

import asyncio
import json
import re
from datetime import timedelta

import pytest

from nsm.apis.connection import Mechanism
from nsm.apis.registry import Destination, Match
from nsm.chains.composed import monitors
from nsm.chains.core import MeshError
from nsm.chains.elements.heal import Heal
from nsm.chains.testing import Fail, call
from nsm.operate.errors import UsageError
from nsm.operate.output import JSON, WIDE
from tests.chains.viewed import ViewedMesh, chain
from tests.operate.faults import operator_of


@pytest.fixture
async def mesh():
    async with ViewedMesh() as running:
        yield running


def wanted(service="web", **labels):
    asked = call("client-0", service, timeout=15)
    asked.connection.labels = labels
    asked.request.mechanism_preferences = [Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})]
    return asked


async def never_made(mesh, service="web", **labels):
    with pytest.raises(MeshError):
        await mesh.add_client().request(wanted(service, **labels))


async def test_fault_1_the_endpoint_was_killed(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client().request(wanted())
    async with operator_of(mesh) as operator:
        assert "UP" in await operator.why("client/nsm-1")
        await mesh.remove("nse")
        told = await operator.why("client/nsm-1")
    print(told)
    assert "client/nsm-1 to nse of web: DOWN" in told
    assert "nse does not respond" in told
    assert "what to do: check that nse runs" in told


async def test_fault_2_the_forwarder_was_killed(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client().request(wanted())
    async with operator_of(mesh) as operator:
        await mesh.remove("forwarder")
        told = await operator.why("client")
    assert "forwarder does not respond" in told


async def test_fault_3_the_address_pool_is_too_small(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/31"), services=["web"])
    await mesh.add_client("other").request(call("other-0", "web", timeout=15))
    async with operator_of(mesh) as operator:
        for _ in range(2):
            await never_made(mesh)
        told = await operator.why("client/nsm-1")
    print(told)
    assert "client/nsm-1 of web: PENDING" in told
    assert "why:        nse: no two addresses are left in 10.0.0.0/31 (point2_point_ipam)" in told
    assert "what to do: give the endpoint a larger prefix" in told
    assert "tried:      2 times since" in told


async def test_fault_4_a_label_is_misspelt(mesh):
    routes = [Destination(destination_selector={"app": "web"})]
    await mesh.add_service("web", [Match(source_selector={"tier": "front"}, routes=routes)])
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"], app="web")
    async with operator_of(mesh) as operator:
        await never_made(mesh, tier="frnt")
        told = await operator.why("client/nsm-1")
    assert "no match of network service 'web' is for a client with labels {'tier': 'frnt'" in told
    assert "`nsm can CLIENT web` shows what is required" in told


async def test_fault_5_the_service_has_another_name(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    async with operator_of(mesh) as operator:
        await never_made(mesh, "wbe")
        told = await operator.why("client/nsm-1")
    assert "network service 'wbe' is not found" in told
    assert "check the name in the client's list" in told


async def test_fault_6_every_endpoint_has_another_fault(mesh):
    full = Fail(*[MeshError("the disk is full")] * 3)
    await mesh.add_endpoint("full", chain("10.0.0.0/24", full), services=["web"])
    await mesh.add_endpoint("tiny", chain("10.1.0.0/32"), services=["web"])
    async with operator_of(mesh) as operator:
        for _ in range(3):
            await never_made(mesh)
        told = await operator.why("client/nsm-1")
    assert [line.split()[:2] for line in told.splitlines() if line.startswith(("full", "tiny"))] in (
        [["full", "3"], ["tiny", "3"]],
        [["tiny", "3"], ["full", "3"]],
    )
    assert "the disk is full" in told
    assert "no two addresses are left in 10.1.0.0/32" in told


class Packets:
    pass_ = True

    async def is_alive(self, connection):
        return self.pass_

    def watch(self, connection, on_down):
        return lambda: None


async def test_fault_7_packets_are_dropped_somewhere(mesh):
    """The control plane is well: only the client notices, and heals."""
    fail = Fail(None, *[MeshError("the disk is full")] * 50)
    await mesh.add_endpoint("nse", chain("10.0.0.0/24", fail), services=["web"])
    packets = Packets()
    client = mesh.add_client(heal=Heal(monitors(mesh.pool("client")), packets))
    await client.request(wanted())
    async with operator_of(mesh) as operator:
        packets.pass_ = False
        await asyncio.sleep(2)
        told = await operator.why("client/nsm-1")
        print(told)
    assert "heals, since no packets come back" in told
    assert "the disk is full" in told
    assert ": UP" not in told


async def test_a_wire_that_is_up_shows_its_path(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client().request(wanted())
    async with operator_of(mesh) as operator:
        told = await operator.why("client/nsm-1")
        listed, code = await operator.wires()
        wide, _ = await operator.wires(form=WIDE)
    print(told, listed, wide)
    hops = [line.split()[1] for line in told.splitlines() if line.startswith("√")]
    assert hops == ["client", "nsmgr", "forwarder", "nse"]
    assert "why:" not in told
    assert code == 0
    assert listed.splitlines()[1].split()[:3] == ["client/nsm-1", "web", "nse"]
    assert "client-0" in wide


async def test_down_lists_only_what_is_not_up(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client("other").request(call("other-0", "web", timeout=15))
    async with operator_of(mesh) as operator:
        assert await operator.wires("--down") == ("No wire fits.\n", 0)
        await never_made(mesh, "wbe")
        told, code = await operator.wires("--down")
        everything, _ = await operator.wires(form=JSON)
        other, other_code = await operator.wires("--client", "other")
    assert code == 1
    assert "PENDING" in told
    assert "other" not in told
    assert {wire["client"]: wire["state"] for wire in everything["wires"]} == {"client": "PENDING", "other": "UP"}
    assert (other_code, other.count("\n")) == (0, 2)


async def test_json_of_why(mesh):
    async with operator_of(mesh) as operator:
        await never_made(mesh, "wbe")
        told = await operator.why("client", form=JSON)
    assert told["wire"]["state"] == "PENDING"
    assert told["attempt"]["tries"] == 1
    assert told["cause"]["code"] == "NotFound"
    assert told["remedy"] == told["cause"]["remedy"]


async def test_a_name_that_no_wire_has(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client().request(wanted())
    async with operator_of(mesh) as operator:
        with pytest.raises(UsageError, match="there is no wire 'cleint/nsm-1'; did you mean client/nsm-1?"):
            await operator.why("cleint/nsm-1")


async def test_a_wire_that_nobody_tries_to_make_any_longer_is_not_listed(mesh):
    async with operator_of(mesh) as operator:
        await never_made(mesh, "wbe")
        assert "PENDING" in (await operator.wires())[0]
        operator.now += timedelta(minutes=11)
        assert await operator.wires() == ("No wire fits.\n", 0)
        assert "tried:" in await operator.why("client")


async def test_watch_prints_what_is_there_and_then_each_change(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await mesh.add_client("other").request(call("other-0", "web", timeout=15))
    async with operator_of(mesh) as operator, operator.watching() as out, operator.watching(form=JSON) as lines:
        await mesh.add_client().request(wanted())
        await asyncio.sleep(1)
        await mesh.remove("nse")
        await asyncio.sleep(1)
        told, objects = out.getvalue(), [json.loads(line) for line in lines.getvalue().splitlines()]
    assert "client/nsm-1 to nse  UP" in told
    assert "client/nsm-1 to nse  DOWN: forwarder: nse does not respond" in told
    states = [each["state"] for each in objects if each["client"] == "client"]
    assert (states[0], states[-1]) == ("UP", "DOWN")


async def test_watch_shows_only_what_is_chosen(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    async with operator_of(mesh) as operator, operator.watching("--client", "other") as out:
        await mesh.add_client().request(wanted())
        await mesh.add_client("other").request(call("other-0", "web", timeout=15))
        await asyncio.sleep(1)
        assert re.search(r"other/\S+ to nse  UP", out.getvalue())
        assert "client" not in out.getvalue()
