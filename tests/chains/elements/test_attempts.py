"""What an operator sees of wires that cannot be made."""

import pytest

from nsm.apis.connection import ConnectionEventType, Path, PathSegment, State
from nsm.apis.registry import Destination, Match
from nsm.chains.core import MeshError, Peer, Refused
from nsm.chains.elements import attempts as module
from nsm.chains.elements.attempts import Attempts
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.testing import Delay, Fail, call
from tests.chains.viewed import ViewedMesh, chain, seen_by

UPDATE, DELETE = ConnectionEventType.UPDATE, ConnectionEventType.DELETE


@pytest.fixture
async def mesh():
    async with ViewedMesh() as running:
        yield running


async def refused(mesh, service="web", client="client", connection_id="client-0", **labels):
    wanted = call(connection_id, service, timeout=15)
    wanted.connection.labels = labels
    with pytest.raises(MeshError) as raised:
        await mesh.add_client(client).request(wanted)
    return raised.value


async def test_a_service_that_nobody_has_registered(mesh):
    async with seen_by(mesh, "operator", attempts=True) as seen:
        await refused(mesh, "wbe")
        kind, attempt, cause, connection = await seen.attempt()
    assert (kind, attempt.tries, attempt.candidates) == (UPDATE, 1, {})
    assert (connection.network_service, connection.state) == ("wbe", State.DOWN)
    assert [segment.name for segment in connection.path.path_segments] == ["client", "nsmgr"]
    assert connection.path.path_segments[0].id == "client-0"
    assert (cause.code, cause.element) == ("NotFound", "discover_forwarder")
    assert "network service 'wbe' is not found" in cause.sentence
    assert "nsm find services" in cause.remedy


async def test_every_candidate_says_why_it_cannot_serve(mesh):
    await mesh.add_endpoint("full", chain("10.0.0.0/31", Fail(*2 * [MeshError("the disk is full")])), services=["web"])
    await mesh.add_endpoint("odd", [Mechanisms({"MEMIF": []})], services=["web"])
    async with seen_by(mesh, "operator", attempts=True) as seen:
        for tries in (1, 2):
            await refused(mesh)
            kind, attempt, cause, _ = await seen.attempt()
            assert (kind, attempt.tries) == (UPDATE, tries)
    assert attempt.first <= attempt.last
    assert {name: each.tries for name, each in attempt.candidates.items()} == {"full": 2, "odd": 2}
    assert "the disk is full" in attempt.candidates["full"].sentence
    assert "unsupported mechanism: requested KERNEL" in attempt.candidates["odd"].sentence
    assert (cause.component, cause.sentence[:31]) == ("forwarder", "all candidates have failed: ful") or cause.remedy


async def test_a_single_candidate_is_named_too(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/31"), services=["web"])
    await mesh.add_client("first").request(call("first-0", "web", timeout=15))
    async with seen_by(mesh, "operator", attempts=True) as seen:
        await refused(mesh)
        _, attempt, cause, _ = await seen.attempt()
    assert [*attempt.candidates] == ["nse"]
    assert (cause.component, cause.element) == ("nse", "point2_point_ipam")
    assert cause.sentence == "no two addresses are left in 10.0.0.0/31"
    assert "larger prefix" in cause.remedy


async def test_labels_that_select_no_endpoint(mesh):
    routes = [Destination(destination_selector={"app": "web"}, weight=1)]
    await mesh.add_service("web", [Match(source_selector={"tier": "front"}, routes=routes)])
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"], app="web")
    async with seen_by(mesh, "operator", attempts=True) as seen:
        await refused(mesh, tier="back")
        _, attempt, cause, connection = await seen.attempt()
    assert "no match of network service 'web' is for a client with labels" in cause.sentence
    assert "`nsm can CLIENT web`" in cause.remedy
    assert connection.labels["tier"] == "back"
    assert attempt.candidates == {}


async def test_it_ends_when_the_client_gets_its_wire(mesh):
    fail = Fail(MeshError("not yet"))
    await mesh.add_endpoint("nse", chain("10.0.0.0/24", fail), services=["web"])
    async with seen_by(mesh, "operator", attempts=True) as seen:
        await refused(mesh)
        _, _, _, attempted = await seen.attempt()
        await mesh.add_client("client").request(call("client-0", "web", timeout=15))
        events = [await seen.next(), await seen.next()]
    assert {kind: connection.id == attempted.id for kind, connection in events} == {UPDATE: False, DELETE: True}


async def test_a_client_that_gets_no_answer_in_its_time(mesh):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24", Delay(60)), services=["web"])
    async with seen_by(mesh, "operator", attempts=True) as seen:
        with pytest.raises(MeshError):
            await mesh.add_client("client").request(call("client-0", "web", timeout=3))
        _, attempt, cause, _ = await seen.attempt()
    assert attempt.tries == 1
    assert cause.code == "DeadlineExceeded"


async def test_who_watches_later_receives_what_is_known(mesh):
    await refused(mesh, "wbe")
    async with seen_by(mesh, "operator", attempts=True) as seen:
        kind, attempt, _, _ = await seen.attempt()
    assert (kind, attempt.tries) == (UPDATE, 1)


@pytest.mark.parametrize(
    ("who", "options"), [("operator", {}), ("client", {"attempts": True}), ("nobody", {"attempts": True})]
)
async def test_only_viewers_who_ask_for_attempts_receive_them(mesh, who, options):
    await mesh.add_endpoint("nse", chain("10.0.0.0/24"), services=["web"])
    async with seen_by(mesh, who, **options) as seen:
        await refused(mesh, "wbe")
        await mesh.add_client(who, refresh=False).request(call("other-0", "web", timeout=15))
        _, connection = await seen.next()
    assert connection.network_service == "web"


async def test_attempts_are_forgotten_when_they_are_too_many_or_too_old(monkeypatch):
    """A workload that tries without end displaces its own attempts, not those of others."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(module, "MOST_OF_ONE", 3)
    monkeypatch.setattr(module, "MOST", 4)
    attempts = Attempts()
    told = []
    attempts.tell = lambda kind, connection: told.append((kind, connection.path.path_segments[0].id))

    async def fail(who, connection_id):
        wanted = call(connection_id, "web")
        wanted.peer = Peer(f"spiffe://test.mesh/{who}", b"")
        wanted.connection.path = path_to(connection_id)
        with pytest.raises(Refused):
            await attempts.request(wanted, Refusing())

    await fail("quiet", "q")
    for number in range(5):
        await fail("loud", f"l-{number}")
    assert [each.path.path_segments[0].id for each in attempts.all()] == ["q", "l-2", "l-3", "l-4"]
    await fail("third", "t")
    assert [each.path.path_segments[0].id for each in attempts.all()] == ["l-2", "l-3", "l-4", "t"]
    now[0] += module.LIFETIME + 1
    assert [*attempts.all()] == []
    assert len(attempts) == 0
    assert told.count((DELETE, "q")) == 1


def path_to(connection_id):

    return Path(
        index=1, path_segments=[PathSegment(name="client", id=connection_id), PathSegment(name="nsmgr", id="x")]
    )


class Refusing:
    async def request(self, call):
        raise Refused("no")


async def test_a_client_that_wants_another_service_now_begins_anew(mesh):
    async with seen_by(mesh, "operator", attempts=True) as seen:
        await refused(mesh, "wbe")
        await seen.attempt()
        await refused(mesh, "web")
        events = [await seen.attempt(), await seen.attempt()]
    assert [(kind, attempt.tries, connection.network_service) for kind, attempt, _, connection in events] == [
        (DELETE, 1, "wbe"),
        (UPDATE, 1, "web"),
    ]
