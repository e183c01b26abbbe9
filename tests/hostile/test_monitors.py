"""What a stranger sees of others through MonitorConnections."""

import asyncio

import pytest

from nsm.apis.connection import MonitorScopeSelector, PathSegment
from nsm.apis.mechanisms import INODE_URL
from nsm.chains.testing.identity import identity_of

from .attacker import Attacker


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
