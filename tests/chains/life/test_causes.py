"""What an operator sees of wires that break: the component, the reason, and what to do."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import ConnectionEventType, State
from nsm.apis.registry import Destination, Match
from nsm.chains.composed import monitors
from nsm.chains.core import Unavailable
from nsm.chains.elements.heal import Heal
from nsm.chains.model.causes import cause_in
from nsm.chains.testing import Fail, call
from tests.chains.viewed import ViewedMesh, chain, seen_by

UPDATE, DELETE = ConnectionEventType.UPDATE, ConnectionEventType.DELETE


@pytest.fixture
async def mesh():
    async with ViewedMesh(token_lifetime=60.0) as running:
        yield running


def causes(connection):
    """The causes on the path, by the names of the segments."""
    found = {each.name: cause_in(each.metrics) for each in connection.path.path_segments}
    return {name: cause for name, cause in found.items() if cause is not None}


async def wire(mesh, client=None):
    return await (client or mesh.add_client()).request(call("client-0", "web", timeout=15))


async def until(seen, is_it):
    """The first event for which `is_it(kind, connection)` holds."""
    while True:
        kind, connection = await seen.next()
        if is_it(kind, connection):
            return connection


def is_down(kind, connection):
    return kind == UPDATE and connection.state == State.DOWN


async def test_an_endpoint_that_dies_is_named_by_its_forwarder(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await wire(mesh)
    async with seen_by(mesh, "operator") as seen:
        await mesh.remove("nse")
        found = causes(await until(seen, is_down))
    assert [*found] == ["forwarder"]
    assert found["forwarder"].code == "PeerLost"
    assert found["forwarder"].sentence.startswith("nse does not respond: ")
    assert found["forwarder"].remedy == "check that nse runs, and start it again if it does not"


async def test_a_forwarder_that_dies_is_named_by_its_manager(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await wire(mesh)
    async with seen_by(mesh, "operator") as seen:
        await mesh.remove("forwarder")
        found = causes(await until(seen, is_down))
    assert [*found] == ["nsmgr"]
    assert found["nsmgr"].sentence.startswith("forwarder does not respond: ")


async def test_a_refresh_that_an_endpoint_refuses_is_down_with_its_reason_and_well_again_without(mesh):
    fail = Fail(None, Unavailable("the disk is full", remedy="delete something"))
    await mesh.add_endpoint("nse", chain("10.0.0.0/24", fail), services=["web"])
    client = mesh.add_client()
    connection = await wire(mesh, client)
    async with seen_by(mesh, "operator") as seen:
        for _ in range(2):
            again = call("client-0", "web", timeout=15)
            again.connection = codec.clone(connection)
            try:
                await client.request(again)
            except Unavailable:
                found = causes(await until(seen, lambda kind, each: is_down(kind, each) and "nse" in causes(each)))
        well = await until(seen, lambda kind, each: each.state == State.UP)
    assert [*found] == ["nse"]
    assert (found["nse"].element, found["nse"].sentence) == ("fail", "the disk is full")
    assert found["nse"].remedy == "delete something"
    assert causes(well) == {}


async def test_a_client_that_no_longer_refreshes_is_the_reason_why_its_wire_ends(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await wire(mesh)
    async with seen_by(mesh, "operator") as seen:
        gone = await until(seen, lambda kind, each: kind == DELETE)
    assert causes(gone)["nsmgr"].code == "Expired"
    assert causes(gone)["nsmgr"].element == "timeout"


async def test_an_edited_service_is_the_reason_why_its_wires_move(mesh):
    await mesh.add_service("web", [Match(routes=[Destination(destination_selector={"app": "web"})])])
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"], app="web")
    await wire(mesh)
    async with seen_by(mesh, "operator") as seen:
        await mesh.add_service("web", [Match(routes=[Destination(destination_selector={"app": "other"})])])
        found = causes(await until(seen, lambda kind, each: each.state == State.RESELECT_REQUESTED))
    assert found["nsmgr"].code == "NotSelected"
    assert found["nsmgr"].sentence == "the network service web was edited and no longer selects nse"


class Packets:
    """Whether packets pass over the wires of a client."""

    def __init__(self):
        self.pass_ = True

    async def is_alive(self, connection):
        return self.pass_

    def watch(self, connection, on_down):
        return lambda: None


async def test_only_a_client_knows_that_no_packets_pass_and_says_so_when_it_heals(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    packets = Packets()
    client = mesh.add_client(heal=Heal(monitors(mesh.pool("client")), packets))
    before = await wire(mesh, client)
    async with seen_by(mesh, "operator") as seen:
        packets.pass_ = False
        healed = await until(seen, lambda kind, each: kind == UPDATE and "client" in causes(each))
        packets.pass_ = True
    assert healed.state == State.UP
    cause = causes(healed)["client"]
    assert (cause.code, cause.sentence, cause.element, cause.is_healing) == (
        "Healing",
        "no packets come back",
        "heal",
        True,
    )
    assert causes(before) == {}


async def test_the_log_of_a_client_names_the_component_that_is_to_blame(mesh, capsys):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    await wire(mesh, mesh.add_client(heal=Heal(monitors(mesh.pool("client")))))
    await mesh.remove("nse")
    await asyncio.sleep(1)
    assert "forwarder reports the connection as down: nse does not respond" in capsys.readouterr().out
