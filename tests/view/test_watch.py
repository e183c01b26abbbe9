"""A view of a mesh: what it shows when wires come and go, and when components die."""

import asyncio

import pytest

from nsm.chains.composed import monitors
from nsm.chains.core import Exhausted, InvalidRequest, NotFound, Unavailable
from nsm.chains.elements.heal import Heal
from nsm.chains.testing import Fail, call
from nsm.view.model import ChangeKind, EventKind, HopState, Kind, Wire, WireState
from nsm.view.source import find
from nsm.view.sources import ManagerSource

from .mesh import VIEW, elements, mesh_with_viewers, until, viewed


def sentences(state, *kinds):
    return [each.sentence for each in state.history.events() if not kinds or each.kind in kinds]


async def test_a_wire_is_shown_with_its_path_its_addresses_and_its_way():
    async with mesh_with_viewers() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"], site="a")
        async with viewed(mesh) as state:
            await mesh.add_client().request(call("c", "shop", timeout=5, labels={"app": "till"}))
            (wire,) = await until(state.wires)
            assert (wire.id, wire.client, wire.service, wire.endpoint) == ("c", "client", "shop", "shop")
            assert (wire.state, wire.way, wire.cause) == (WireState.UP, ("veth",), None)
            assert (wire.client_addresses, wire.endpoint_addresses) == (("10.8.0.1/32",), ("10.8.0.0/32",))
            assert wire.labels["app"] == "till"
            kinds = [Kind.CLIENT, Kind.MANAGER, Kind.FORWARDER, Kind.ENDPOINT]
            assert [each.kind for each in wire.path] == kinds
            assert [each.state for each in wire.path] == [HopState.UP] * 4
            assert wire.path[1].identity == "spiffe://test.mesh/nsmgr"
            state.settle()
            (service,), (endpoint,), (node,) = state.records.services(), state.records.endpoints(), state.nodes()
            assert (service.name, service.endpoints, service.wires, service.down) == ("shop", ("shop",), 1, 0)
            assert (endpoint.labels["shop"]["site"], endpoint.wires) == ("a", 1)
            assert (node.clients, node.forwarders, node.wires) == (["client"], ["forwarder"], 1)
            assert sentences(state, EventKind.WIRE_UP)[-1].endswith("is up to shop at shop over veth")


async def test_a_closed_wire_is_gone_and_its_end_stays_in_the_history():
    async with mesh_with_viewers() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        async with viewed(mesh) as state:
            client = mesh.add_client()
            await client.request(call("c", "shop", timeout=5))
            await until(state.wires)
            await client.close(call("c"))
            await until(lambda: not state.wires())
            assert state.history.events("c")[-1].kind == EventKind.WIRE_CLOSED


async def test_a_forwarder_that_dies_is_the_first_hop_that_is_not_well():
    async with mesh_with_viewers(orphan_lifetime=60) as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        async with viewed(mesh) as state:
            await mesh.add_client().request(call("c", "shop", timeout=5))
            await until(state.wires)
            await mesh.remove("forwarder")
            (wire,) = await until(lambda: [each for each in state.wires() if each.state != WireState.UP])
            assert wire.state is WireState.DOWN
            assert [each.state for each in wire.path][:3] == [HopState.UP, HopState.UP, HopState.DOWN]
            assert (wire.cause.component, wire.path[2].cause) == ("nsmgr", wire.cause)
            assert wire.cause.sentence.startswith("forwarder does not respond")
            assert sentences(state, EventKind.WIRE_DOWN)


async def test_a_manager_that_does_not_respond_is_never_shown_as_up():
    async with mesh_with_viewers(orphan_lifetime=60) as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        async with viewed(mesh) as state:
            client = mesh.add_client()
            await client.request(call("c", "shop", timeout=5))
            await until(state.wires)
            await mesh.remove("nsmgr")
            (wire,) = await until(lambda: [each for each in state.wires() if each.state != WireState.UP])
            assert (wire.state, wire.cause.code) == (WireState.UNHEARD, "manager-unresponsive")
            assert wire.heard is not None
            assert wire.path[1].state is HopState.UNHEARD
            (node,) = state.nodes()
            assert (node.state, node.wires, node.down) == ("UNHEARD", 1, 1)
            assert sentences(state, EventKind.COMPONENT_UNHEARD)[0].endswith("nothing is known of 1 of its wires")

            await mesh.start("nsmgr")
            (wire,) = await until(
                lambda: [each for each in state.wires() if each.cause and each.cause.code == "not-reported"]
            )
            assert wire.state is WireState.UNHEARD, "the new manager does not know it yet"
            await client.request(call("c", "shop", timeout=5))
            await until(lambda: [each.state for each in state.wires()] == [WireState.UP])
            assert any("responds again" in each for each in sentences(state, EventKind.COMPONENT_HEARD))


async def test_a_view_that_starts_later_knows_all_wires_but_not_since_when():
    async with mesh_with_viewers() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        client = mesh.add_client()
        for each in "abc":
            await client.request(call(each, "shop", timeout=5))
        async with viewed(mesh) as state:
            await until(lambda: len(state.wires()) == 3)
            found = sorted((each.id, each.state, each.since) for each in state.wires())
            assert found == [(each, WireState.UP, None) for each in "abc"]
            assert sentences(state, EventKind.WIRE_UP) == [], "they are no news"


async def test_a_reader_of_changes_gets_a_snapshot_and_then_each_change():
    async with mesh_with_viewers() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        async with viewed(mesh) as state:
            changes = state.stream.follow()
            first = await anext(changes)
            assert (first.kind, first.snapshot.wires) == (ChangeKind.SNAPSHOT, [])
            await mesh.add_client().request(call("c", "shop", timeout=5))
            async with asyncio.timeout(5):
                change = await anext(changes)
                while change.kind is not ChangeKind.WIRE:
                    change = await anext(changes)
            assert (change.subject, change.wire.state) == ("c", WireState.UP)
            await changes.aclose()

            again = state.stream.follow(first.position)
            assert (await anext(again)).kind is not ChangeKind.SNAPSHOT, "nothing was missed"
            await again.aclose()
            from_before = state.stream.follow("0a0b0c0d-3")
            assert (await anext(from_before)).kind is ChangeKind.SNAPSHOT
            await from_before.aclose()


async def test_a_service_that_is_edited_and_an_endpoint_that_leaves_are_events():
    async with mesh_with_viewers() as mesh:
        async with viewed(mesh) as state:
            await mesh.add_service("shop", [])
            await mesh.add_endpoint("one", elements(), services=["shop"])
            await until(lambda: [each.endpoints for each in state.records.services()] == [("one",)])
            assert "one provides shop" in sentences(state, EventKind.ENDPOINT_REGISTERED)
            assert "the service shop exists now" in sentences(state, EventKind.SERVICE_CHANGED)


async def test_a_wire_that_was_never_made_is_an_attempt_with_what_each_candidate_answered():
    async with mesh_with_viewers() as mesh:
        refusing = [Fail(Exhausted("no room"), Exhausted("no room"), None)]
        await mesh.add_endpoint("shop", elements(*refusing), services=["shop"])
        async with viewed(mesh) as state:
            client = mesh.add_client()
            for _ in range(2):
                with pytest.raises(Exhausted):
                    await client.request(call("c", "shop", timeout=5))
            (attempt,) = await until(lambda: [each for each in state.attempts() if each.tries == 2])
            assert (attempt.id, attempt.client, attempt.service) == ("c", "client", "shop")
            assert [(each.endpoint, each.tries, each.sentence) for each in attempt.candidates] == [
                ("shop", 2, "shop: no room (fail)")
            ]
            assert (attempt.cause.sentence, attempt.cause.component, attempt.cause.code) == (
                "no room",
                "shop",
                "ResourceExhausted",
            )
            assert any("has no wire to shop yet" in each for each in sentences(state, EventKind.WIRE_REFUSED))
            await client.request(call("c", "shop", timeout=5))
            await until(lambda: state.wires() and not state.attempts())


async def test_a_wire_that_heals_elsewhere_is_not_closed_but_moved():
    async with mesh_with_viewers(orphan_lifetime=60) as mesh:
        for name, prefix in (("one", "10.1.0.0/24"), ("two", "10.2.0.0/24")):
            await mesh.add_endpoint(name, elements(prefix=prefix), services=["shop"])
        async with viewed(mesh) as state:
            client = mesh.add_client(refresh=True, heal=Heal(monitors(mesh.pool("client"))))
            before = (await client.request(call("c", "shop", timeout=5))).network_service_endpoint_name
            await until(state.wires)
            await mesh.remove(before)
            after = "two" if before == "one" else "one"
            await until(lambda: [(each.state, each.endpoint) for each in state.wires()] == [(WireState.UP, after)])
            kinds = [each.kind for each in state.history.events("c")]
            assert EventKind.WIRE_CLOSED not in kinds
            assert kinds[-1] is EventKind.WIRE_MOVED
            assert state.history.events("c")[-1].sentence.endswith(f"moved from {before} to {after} over veth")


def test_a_wire_is_called_by_its_interface_its_id_or_a_beginning():
    wires = [
        Wire(id=key, client=client, interface=interface, service="shop", state=WireState.UP)
        for key, client, interface in (("a1", "till", "nsm-1"), ("a2", "till", "nsm-2"), ("b1", "desk", "nsm-1"))
    ]
    for name, key in (("till/nsm-2", "a2"), ("desk", "b1"), ("b", "b1"), ("a1", "a1"), ("desk/n", "b1")):
        assert find(name, wires).id == key
    with pytest.raises(InvalidRequest, match="'a' names 2 wires: till/nsm-1, till/nsm-2"):
        find("a", wires)
    with pytest.raises(NotFound, match="there is no wire 'x'; there are till/nsm-1, till/nsm-2, desk/nsm-1"):
        find("x", wires)
    with pytest.raises(NotFound, match="the mesh has none"):
        find("x", [])


async def test_a_command_reads_one_manager_without_a_view():
    async with mesh_with_viewers() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        await mesh.add_client().request(call("c", "shop", timeout=5))
        async with ManagerSource.connect(mesh.url("nsmgr"), mesh.pool(VIEW)) as source:
            (wire,) = await source.wires()
            assert (wire.id, wire.state, wire.way) == ("c", WireState.UP, ("veth",))
            assert await source.wire("client") == wire
            assert (await source.snapshot()).wires == [wire]
            assert (await anext(source.changes())).kind is ChangeKind.SNAPSHOT
        await mesh.remove("nsmgr")
        with pytest.raises(Unavailable, match="cannot be read: cannot reach"):
            async with ManagerSource.connect(mesh.url("nsmgr"), mesh.pool(VIEW), timeout=0.2):
                pass
