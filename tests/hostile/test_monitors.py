"""What a stranger sees of others through MonitorConnections."""

import asyncio

import pytest

from nsm.apis.connection import Connection, MonitorScopeSelector, Path, PathSegment, State
from nsm.apis.mechanisms import INODE_URL
from nsm.chains.core import Element, InvalidRequest
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import network_service

from .attacker import Attacker
from .endpoints import like_others, serving


@pytest.fixture
async def connection(victim):
    made = await victim.request(victim.connection("watched"), victim.kernel("vic1"), files=[victim.network])
    yield made
    await victim.close(made)


def ids(events):
    """The ids of all segments of all connections that were shown."""
    shown = [connection for event in events for connection in event.connections.values()]
    return {segment.id for connection in shown for segment in connection.path.path_segments}


def tokens(events):
    shown = [connection for event in events for connection in event.connections.values()]
    return [segment.token for connection in shown for segment in connection.path.path_segments if segment.token]


async def test_a_stranger_sees_nothing_of_a_connection(mesh, attacker, connection):
    own = connection.path.path_segments
    selectors = [
        MonitorScopeSelector(),
        MonitorScopeSelector(network_services=["icmp"]),
        MonitorScopeSelector(path_segments=[PathSegment(name=own[0].name)]),
        *(MonitorScopeSelector(path_segments=[PathSegment(id=each.id)]) for each in own),
        MonitorScopeSelector(path_segments=[PathSegment(name=each.name, id=each.id) for each in own]),
    ]
    for component in ("nsmgr", "forwarder", "endpoint"):
        watched = [attacker.monitor(selector, url=mesh.urls[component]) for selector in selectors]
        for events in await asyncio.gather(*watched):
            assert not ids(events) & {each.id for each in own}, component


async def test_a_stranger_sees_nothing_of_what_happens(mesh, attacker, victim):
    watching = [
        asyncio.ensure_future(attacker.monitor(url=mesh.urls[each], seconds=1.0))
        for each in ("nsmgr", "forwarder", "endpoint")
    ]
    await asyncio.sleep(0.3)
    made = await victim.request(victim.connection("passes-by"), victim.kernel("vic2"), files=[victim.network])
    again = await victim.request(made, victim.kernel("vic2"), files=[victim.network])
    await victim.close(again)
    for events in await asyncio.gather(*watching):
        assert "passes-by" not in ids(events)


async def test_a_stranger_that_writes_itself_into_a_path_sees_no_more(mesh, attacker, connection):
    """Its own connection names the victim's segments, and one of the victim's names would do for the monitor."""
    made = await attacker.request(
        attacker.connection("like-the-victim", name=connection.path.path_segments[0].name),
        attacker.kernel("att1"),
        files=[attacker.network],
    )
    seen = ids(await attacker.monitor())
    await attacker.close(made)
    assert connection.path.path_segments[0].id not in seen


async def test_a_client_sees_its_own_connection_without_tokens(victim, connection):
    events = await victim.monitor()
    assert connection.path.path_segments[1].id in ids(events)
    assert not tokens(events)


async def test_hundreds_that_listen_for_much_hold_nobody_up_and_keep_little(mesh, bystander):
    """Each event was compared with all that each of them named, and all of that was kept: 3,000 services each."""
    selector = MonitorScopeSelector(network_services=[f"{number:x}" for number in range(64)])
    async with Attacker(mesh) as attacker, bystander.watching():
        listening = [asyncio.ensure_future(attacker.monitor(selector, seconds=4)) for _ in range(300)]
        for number in range(10):
            made = await attacker.request(
                attacker.connection(f"heard-{number}"), attacker.kernel(), files=[attacker.network]
            )
            await attacker.close(made)
        assert not any(ids(events) for events in await asyncio.gather(*listening))


@pytest.mark.parametrize("selector", [
    MonitorScopeSelector(network_services=[f"{number:x}" for number in range(3000)]),
    MonitorScopeSelector(path_segments=[PathSegment(name="x")] * 17),
], ids=["services", "segments"])  # fmt: skip
async def test_a_selector_that_names_more_than_anybody_asks_for_is_refused(attacker, selector):
    with pytest.raises(InvalidRequest, match="at most (16|64) are allowed"):
        await attacker.monitor(selector)


async def test_who_may_see_all_sees_all_but_tokens(mesh, connection):
    """The local mesh's operator, as `nsm mesh status` asks."""
    async with Attacker(mesh, identity=identity_of(mesh.authority, "operator")) as operator:
        events = await operator.monitor()
    assert connection.path.path_segments[0].id in ids(events)
    assert not tokens(events)


async def test_a_stranger_without_connections_learns_of_none_and_of_no_namespace(mesh, connection):
    async with Attacker(mesh, "stranger") as stranger:
        for component in ("nsmgr", "forwarder", "endpoint"):
            seen = [c for event in await stranger.monitor(url=mesh.urls[component]) for c in event.connections.values()]
            assert not seen, {c.mechanism.parameters.get(INODE_URL) for c in seen if c.mechanism is not None}


async def test_a_name_that_is_no_identity_is_no_viewer(mesh, connection):
    """An SVID of another workload whose path merely contains that of the operator."""
    for path in ("node-1/operator", "operator/x", "operatorx", "x/operator"):
        async with Attacker(mesh, identity=identity_of(mesh.authority, path)) as stranger:
            assert connection.path.path_segments[0].id not in ids(await stranger.monitor())


@pytest.mark.parametrize(("component", "position"), [("forwarder", 2), ("endpoint", 3)])
async def test_what_a_stranger_asks_further_on_is_no_news_of_the_victims_connection(
    mesh, attacker, victim, connection, component, position
):
    """It puts the victim's ids into its path, and a token in the name of who listens there, which it signed itself."""
    url, segments = (
        mesh.urls[component],
        [PathSegment(name=each.name, id=each.id) for each in connection.path.path_segments],
    )
    listener = (await attacker.peer(mesh.urls["nsmgr" if position == 2 else "forwarder"])).spiffe_id
    segments = segments[:position]
    for number, segment in enumerate(segments[:-1]):
        following = attacker.spiffe_id if number == position - 2 else listener
        segment.token = attacker.token(sub=listener, aud=[following])
    asked = Connection(
        id=segments[-1].id, network_service="icmp", path=Path(index=position - 1, path_segments=segments)
    )
    selector = MonitorScopeSelector(path_segments=[PathSegment(id=connection.path.path_segments[1].id)])
    watching = asyncio.ensure_future(victim.monitor(selector, seconds=0.6))
    await asyncio.sleep(0.1)
    made = await attacker.request(asked, attacker.kernel(), url=url, files=[attacker.network])
    shown = ids(await attacker.monitor(url=url, seconds=0.1))
    await attacker.close(made, url=url)
    assert made.path.path_segments[position].id in shown, "the stranger itself sees it"
    for seen in [c for event in await watching for c in event.connections.values()]:
        assert (seen.state, seen.context) == (State.UP, connection.context)


class SaysThatTheVictimIsBehind(Element):
    """Of an endpoint: answers as though the victim came next, with the id that its client asks for at its start."""

    def __init__(self, attacker, victim_id):
        self.attacker, self.victim_id = attacker, victim_id

    async def request(self, call, rest):
        call.continued = True  # so that the path is not cut
        connection = await rest.request(call)
        own = connection.path.path_segments[connection.path.index]
        own.token = self.attacker.token(aud=[self.victim_id])
        forged = self.attacker.token(sub=self.victim_id, aud=[self.attacker.spiffe_id])
        connection.path.path_segments.append(PathSegment(name="victim", id="victim-0", token=forged))
        return connection


async def test_nobody_passes_a_connection_off_as_one_that_a_victim_had(mesh, attacker, victim):
    """A client that starts again goes on with what its manager shows it under its own id."""
    chain = like_others(attacker, SaysThatTheVictimIsBehind(attacker, victim.spiffe_id)).chain
    async with serving(attacker, network_service(chain)):
        made = await attacker.request(
            attacker.connection("victim-0", name="victim", service="evil"), attacker.kernel(), files=[attacker.network]
        )
        assert made.path.path_segments[-1].id == "victim-0", "the answer came as it was made"
        selector = MonitorScopeSelector(path_segments=[PathSegment(id="victim-0")])
        shown = ids(await victim.monitor(selector))
        await attacker.close(made)
    assert made.path.path_segments[1].id not in shown
