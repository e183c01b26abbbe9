"""The view of a local mesh: started with it, told by its processes, and gone with it."""

import asyncio
import socket
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from nsm.chains.core import Refused
from nsm.view.client import ViewClient
from nsm.view.model import ChangeKind, ComponentState, HopState, WireState

from .conftest import local_mesh, until

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def viewed():
    with local_mesh(has_view=True) as found:
        yield found


@pytest.fixture(scope="module")
def one_node():
    """A mesh that tests leave as they found it."""
    with local_mesh(has_view=True) as found:
        found.up()
        yield found


def socket_of(mesh):
    """The URL of the view's socket, once it answers."""
    path = mesh.folder / "view.sock"

    def answers():
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    assert until(answers), mesh.nsm("logs", "view", code=None).stdout
    return f"unix://{path}"


async def seen(view, holds, seconds=10.0):
    """The wires, once all of `holds` them."""
    async with asyncio.timeout(seconds):
        async for _ in view.changes():
            wires = await view.wires()
            if wires and holds(wires):
                return wires
    raise AssertionError


def is_whole(wires):
    """Whether all that is known about their paths has arrived."""
    return all(each.state is WireState.UP and each.endpoint_node and each.path[1].identity for each in wires)


async def test_a_mesh_of_two_nodes_is_shown_as_it_is_and_what_breaks_is_named(viewed):
    mesh = viewed
    mesh.up("-f", str(EXAMPLES / "two-nodes.yaml"))
    async with ViewClient.connect(socket_of(mesh)) as view:
        wires = await seen(view, is_whole)
        (wire,) = [each for each in wires if each.node != each.endpoint_node]
        assert wire.way in (("VXLAN",), ("WireGuard",))
        assert wire.path[0].node == wire.node
        assert wire.path[-1].node == wire.endpoint_node
        assert wire.path[1].identity == f"spiffe://local.mesh/{wire.node}/nsmgr"
        assert [each.state for each in await view.nodes()] == [ComponentState.UP] * 2
        async with asyncio.timeout(5):
            while [each.state for each in await view.domains()] != [ComponentState.UP]:
                await asyncio.sleep(0.05)

        changes = view.changes()
        assert (await anext(changes)).kind is ChangeKind.SNAPSHOT
        began = time.monotonic()
        mesh.nsm("kill", f"forwarder-{wire.endpoint_node}")
        async with asyncio.timeout(10):
            change = await anext(changes)
            while change.kind is not ChangeKind.WIRE or change.wire.state is WireState.UP:
                change = await anext(changes)
        assert time.monotonic() - began < 3, "that includes the command"
        unwell = next(each for each in change.wire.path if each.state is not HopState.UP)
        assert unwell.name == f"forwarder-{wire.endpoint_node}"
        assert unwell.cause.sentence
        await changes.aclose()
        mesh.nsm("start", f"forwarder-{wire.endpoint_node}")
        await seen(view, lambda wires: all(each.state is WireState.UP for each in wires))


async def test_a_manager_that_hangs_does_not_respond_and_its_wires_are_not_shown_as_up(one_node):
    async with ViewClient.connect(socket_of(one_node)) as view:
        await seen(view, lambda wires: wires[0].state is WireState.UP)
        one_node.nsm("kill", "--signal", "STOP", "nsmgr-node-1")
        (wire,) = await seen(view, lambda wires: wires[0].state is WireState.UNHEARD)
        assert "has not responded since" in wire.cause.sentence
        one_node.nsm("kill", "--signal", "CONT", "nsmgr-node-1")
        await seen(view, lambda wires: wires[0].state is WireState.UP)


async def test_status_has_the_address_of_the_view_which_needs_its_token(one_node):
    socket_of(one_node)
    url = until(lambda: one_node.status().get("view", {}).get("url"))
    assert url in one_node.nsm("status").stdout
    parts = urlsplit(url)
    (token,) = parse_qs(parts.query)["token"]
    async with ViewClient.connect(f"http://{parts.netloc}", token=token) as view:
        assert [each.client for each in await view.wires()] == ["client"]
    assert (one_node.folder / "view.token").stat().st_mode & 0o777 == 0o600
    async with ViewClient.connect(f"http://{parts.netloc}") as view:
        with pytest.raises(Refused):
            await view.wires()


async def test_a_view_that_was_killed_is_back_with_the_next_up_and_knows_the_mesh(one_node):
    async with ViewClient.connect(socket_of(one_node)) as view:
        await seen(view, lambda wires: wires[0].state is WireState.UP)
        one_node.nsm("kill", "view")
        assert "ended with -9" in one_node.nsm("status").stdout
        one_node.up()
        socket_of(one_node)
        (wire,) = await seen(view, lambda wires: wires[0].state is WireState.UP)
        assert wire.since is None, "nobody knows since when"


async def test_one_view_shows_the_wires_and_nodes_of_two_domains(viewed):
    mesh = viewed
    mesh.up("-f", str(EXAMPLES / "two-domains.yaml"))
    async with ViewClient.connect(socket_of(mesh)) as view:
        wires = await seen(view, lambda wires: any(each.domain for each in wires) and wires[0].state is WireState.UP)
        (wire,) = [each for each in wires if each.domain]
        domains = {each.name for each in await view.domains()}
        assert len(domains) == 2
        assert {each.domain for each in await view.nodes()} == domains
        assert {each.domain for each in wire.path if each.domain} == domains
    pid = mesh.status()["view"]["pid"]
    mesh.nsm("down")
    assert until(lambda: not Path(f"/proc/{pid}").exists())
