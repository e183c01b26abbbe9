"""Who may watch which connections, what nobody gets to see, and how what happens further on comes to whoever watches."""

import asyncio

import jwt
import pytest

from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorScopeSelector,
    Path,
    PathSegment,
    State,
)
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Peer
from nsm.chains.elements.monitor import DOWNSTREAM, Monitor
from nsm.chains.policy import IdPatterns

VIEWERS = IdPatterns(["spiffe://test.mesh/operator"])


def call(owner, connection_id="c"):
    segments = [
        PathSegment(
            name=name,
            id=f"{connection_id}-{name}",
            token=jwt.encode({"sub": f"spiffe://test.mesh/{name}", "exp": 1}, "k" * 32),
        )
        for name in (owner, "nsmgr", "endpoint")
    ]
    mechanism = Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": "inode://4/1", "name": "nsm-1"})
    connection = Connection(id=connection_id, mechanism=mechanism, path=Path(index=1, path_segments=segments))
    return Call(NetworkServiceRequest(connection=connection))


async def seen_by(monitor, name):
    stream = monitor.monitor(MonitorScopeSelector(), Peer(f"spiffe://test.mesh/{name}", b""))
    event = await anext(stream)
    return stream, event.connections


@pytest.mark.parametrize(
    ("name", "ids"),
    [("client", {"c"}), ("other", {"d"}), ("endpoint", {"c", "d"}), ("stranger", set()), ("operator", {"c", "d"})],
)
async def test_a_peer_sees_the_connections_whose_path_it_is_on_and_a_viewer_all(name, ids):
    monitor = Monitor(viewers=VIEWERS)
    chain = Chain([Begin(), monitor])
    await chain.request(call("client", "c"))
    await chain.request(call("other", "d"))
    stream, connections = await seen_by(monitor, name)
    assert set(connections) == ids
    await stream.aclose()


@pytest.mark.parametrize("name", ["client", "operator"])
async def test_nobody_gets_the_tokens_of_a_path(name):
    monitor = Monitor(viewers=VIEWERS)
    await Chain([Begin(), monitor]).request(call("client"))
    stream, connections = await seen_by(monitor, name)
    assert not any(segment.token for segment in connections["c"].path.path_segments)
    await stream.aclose()


async def test_a_viewer_is_not_told_the_namespaces_of_others():
    monitor = Monitor(viewers=VIEWERS)
    await Chain([Begin(), monitor]).request(call("client"))
    for name, told in (("client", {"inodeURL", "name"}), ("operator", {"name"})):
        stream, connections = await seen_by(monitor, name)
        assert set(connections["c"].mechanism.parameters) == told
        await stream.aclose()


async def test_changes_are_told_to_the_same_peers_only():
    monitor = Monitor(viewers=VIEWERS)
    chain = Chain([Begin(), monitor])
    streams = {name: (await seen_by(monitor, name))[0] for name in ("client", "other", "operator")}
    await chain.request(call("client", "c"))
    await chain.request(call("other", "d"))
    for name, id_ in (("client", "c"), ("other", "d"), ("operator", "c")):
        event = await anext(streams[name])
        assert (event.type, set(event.connections)) == (ConnectionEventType.UPDATE, {id_})
    await chain.close(call("client", "c"))
    await chain.close(call("other", "d"))
    for name, id_ in (("client", "c"), ("other", "d")):
        event = await anext(streams[name])
        assert (event.type, set(event.connections)) == (ConnectionEventType.DELETE, {id_})
    for stream in streams.values():
        await stream.aclose()


class GoesOn(Element):
    """As a client chain does that asks the forwarder."""

    async def request(self, call, rest):
        call.live.put(DOWNSTREAM, "forwarder")
        return await rest.request(call)


async def test_a_gateway_that_dies_behind_a_firewall_shows_at_the_first_client_too():
    """Both wires of the chain pass the same manager and forwarder, so the path has each of them twice."""
    told = asyncio.Queue()

    async def events(target, selector):
        while True:
            yield await told.get()

    names = ["client", "nsmgr", "forwarder", "firewall", "nsmgr", "forwarder", "gateway"]
    segments = [PathSegment(name=name, id=f"{name}-{place}") for place, name in enumerate(names)]

    def connection(place):
        return Connection(id=segments[place].id, path=codec.clone(Path(index=place, path_segments=segments)))

    monitor = Monitor(events)
    chain = Chain([Begin(), monitor, GoesOn()])
    for place in (1, 4):
        await chain.request(Call(NetworkServiceRequest(connection=connection(place))))
    stream = monitor.monitor(MonitorScopeSelector())
    await anext(stream)
    for place in (2, 5):
        gone = connection(place)
        gone.state = State.DOWN
        told.put_nowait(ConnectionEvent(type=ConnectionEventType.UPDATE, connections={gone.id: gone}))
        async with asyncio.timeout(2):
            event = await anext(stream)
        assert {key: each.state for key, each in event.connections.items()} == {f"nsmgr-{place - 1}": State.DOWN}
    await stream.aclose()
    await chain.aclose()
