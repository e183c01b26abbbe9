"""What monitors report: to whom, what nobody gets to see, and what happens further on."""

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
from nsm.chains.core import DEFAULT_LIMITS, Begin, Call, Chain, Element, Peer, Unavailable
from nsm.chains.elements.monitor import DOWNSTREAM, Monitor
from nsm.chains.model.causes import cause_in
from nsm.chains.policy import IdPatterns, Trust
from nsm.chains.testing import Fail, call
from nsm.chains.transport import Monitors
from tests.chains.elements.paths import path

INITIAL, UPDATE, DELETE = ConnectionEventType
TRUST = Trust(viewers=IdPatterns(["spiffe://test.mesh/operator"]))


def call_of(owner, connection_id="c"):
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
    monitor = Monitor(trust=TRUST)
    chain = Chain([Begin(), monitor])
    await chain.request(call_of("client", "c"))
    await chain.request(call_of("other", "d"))
    stream, connections = await seen_by(monitor, name)
    assert set(connections) == ids
    await stream.aclose()


@pytest.mark.parametrize("name", ["client", "operator"])
async def test_nobody_gets_the_tokens_of_a_path(name):
    monitor = Monitor(trust=TRUST)
    await Chain([Begin(), monitor]).request(call_of("client"))
    stream, connections = await seen_by(monitor, name)
    assert not any(segment.token for segment in connections["c"].path.path_segments)
    await stream.aclose()


async def test_a_viewer_is_not_told_the_namespaces_of_others():
    monitor = Monitor(trust=TRUST)
    await Chain([Begin(), monitor]).request(call_of("client"))
    for name, told in (("client", {"inodeURL", "name"}), ("operator", {"name"})):
        stream, connections = await seen_by(monitor, name)
        assert set(connections["c"].mechanism.parameters) == told
        await stream.aclose()


async def test_changes_are_told_to_the_same_peers_only():
    monitor = Monitor(trust=TRUST)
    chain = Chain([Begin(), monitor])
    streams = {name: (await seen_by(monitor, name))[0] for name in ("client", "other", "operator")}
    await chain.request(call_of("client", "c"))
    await chain.request(call_of("other", "d"))
    for name, id_ in (("client", "c"), ("other", "d"), ("operator", "c")):
        event = await anext(streams[name])
        assert (event.type, set(event.connections)) == (ConnectionEventType.UPDATE, {id_})
    await chain.close(call_of("client", "c"))
    await chain.close(call_of("other", "d"))
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

    monitor = Monitor(Monitors(events))
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


@pytest.fixture
def forwarder(monkeypatch):
    """One whose streams are heard for a while, as far as the manager knows, and end."""
    monkeypatch.setattr(A_WHILE, 0.0)
    return Forwarder()


A_WHILE = "nsm.chains.transport.monitors.A_WHILE"


class Forwarder:
    """`has` is which connections it has, each time that it is listened to; None: it is not there."""

    def __init__(self):
        self.has = []

    async def events(self, target, selector):
        if not self.has or (present := self.has.pop(0)) is None:
            raise Unavailable("the forwarder is not there")
        connections = {f"{c}-forwarder": _at_the_forwarder(c) for c in present}
        yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER, connections=connections)
        yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER)
        await asyncio.sleep(0.01)
        raise Unavailable("the SVID that it was shown has expired")


def _at_the_forwarder(connection_id):
    asked = call_of("client", connection_id)
    path = asked.connection.path
    path.index, path.path_segments[1].id = 2, connection_id
    return Connection(id=path.path_segments[2].id, path=path, state=State.UP)


async def _told_by_the_manager(forwarder, connection_ids):
    """Which connections it reports as down, until all are; of each, how many times nobody had listened by then."""
    monitor = Monitor(Monitors(forwarder.events))
    chain = Chain([Begin(), monitor, GoesOn()])
    for connection_id in connection_ids:
        asked = call_of("client", connection_id)
        asked.connection.path.path_segments[1].id = connection_id
        await chain.request(asked)
    stream = monitor.monitor(MonitorScopeSelector())
    await anext(stream)
    told = []
    while len(told) < len(connection_ids):
        kind, states = await next_of(stream)
        assert (kind, [*states.values()]) == (ConnectionEventType.UPDATE, [State.DOWN])
        told.append((*states, len(forwarder.has)))
    await stream.aclose()
    await chain.aclose()
    return sorted(told)


async def test_a_connection_to_a_peer_that_ends_with_its_svid_shows_at_nobody(forwarder):
    """Upstream's clients ask anew when a connection is down, and for another endpoint if they do not ping."""
    forwarder.has = [["c", "d"], ["c", "d"], ["c", "d"]]
    assert await _told_by_the_manager(forwarder, ["c", "d"]) == [("c", 0), ("d", 0)]


async def test_what_a_peer_that_was_started_again_does_not_have_is_down(forwarder):
    forwarder.has = [["c", "d"], ["c"], ["c"]]
    assert await _told_by_the_manager(forwarder, ["c", "d"]) == [("c", 0), ("d", 1)]


async def test_a_peer_that_is_gone_is_not_waited_for(forwarder):
    forwarder.has = [["c"], None, ["c"]]
    assert await _told_by_the_manager(forwarder, ["c"]) == [("c", 1)]


async def test_who_ends_each_stream_at_once_is_not_listened_to_again(forwarder, monkeypatch):
    monkeypatch.setattr(A_WHILE, 60.0)
    forwarder.has = [["c"], ["c"]]
    assert await _told_by_the_manager(forwarder, ["c"]) == [("c", 1)]


@pytest.fixture
async def relaying():
    """The manager's stream of events that others caused, which has begun, and what calls come to."""
    monitor = Monitor()
    chain = Chain([Begin(), monitor])
    selector = MonitorScopeSelector(path_segments=[PathSegment(name="nsmgr")])
    events = monitor.monitor_others(selector, MANAGER)
    await anext(events)
    yield events, chain, monitor
    await events.aclose()


MANAGER = Peer("spiffe://test.mesh/nsmgr", b"")


def asked_by(manager, connection_id="c", *, segment="nsmgr", **fields):
    asked = call_of("client", connection_id)
    path = asked.connection.path
    path.index, path.path_segments[1].name, asked.peer = 2, segment, manager
    for name, value in fields.items():
        setattr(asked.connection, name, value)
    return asked


async def next_of(events):
    """The next event's kind, and the connections that it is about with their states."""
    event = await asyncio.wait_for(anext(events), 1)
    return event.type, {id_: connection.state for id_, connection in event.connections.items()}


async def test_who_asked_is_not_told_once_more_what_the_answer_told_it(relaying):
    """Neither of its requests nor of its closes: the first event is of what somebody else did."""
    events, chain, monitor = relaying
    await chain.request(asked_by(MANAGER))
    await chain.request(asked_by(MANAGER))
    await chain.close(asked_by(MANAGER))
    await chain.request(asked_by(MANAGER, "d"))
    monitor._set_down("d")
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"d": State.DOWN})


async def test_another_identity_s_calls_are_told_also_if_it_has_the_same_name(relaying):
    events, chain, _ = relaying
    await chain.request(asked_by(Peer("spiffe://test.mesh/other", b"")))
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"c": State.UP})


async def test_a_stage_of_a_chain_is_not_told_of_the_connections_of_other_stages(relaying):
    """It is on their paths, but would ignore such events: each set-up sent one to every stage."""
    events, chain, monitor = relaying
    asked = asked_by(MANAGER, "other", segment="stage")
    asked.connection.path.path_segments[0].name = "nsmgr"
    await chain.request(asked)
    monitor._set_down("other")
    await chain.close(asked_by(MANAGER, "other", segment="stage"))
    await chain.request(asked_by(MANAGER, "own"))
    monitor._set_down("own")
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"own": State.DOWN})


async def test_who_was_told_that_a_connection_is_down_is_told_that_it_is_up_again(relaying):
    events, chain, monitor = relaying
    await chain.request(asked_by(MANAGER))
    monitor._set_down("c")
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"c": State.DOWN})
    await chain.request(asked_by(MANAGER))
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"c": State.UP})


async def test_the_end_that_reselection_brings_is_followed_by_the_new_beginning(relaying):
    events, chain, _ = relaying
    await chain.request(asked_by(MANAGER))
    await chain.request(asked_by(MANAGER, state=State.RESELECT_REQUESTED))
    assert await next_of(events) == (ConnectionEventType.UPDATE, {"c": State.UP})


@pytest.fixture
async def many():
    """A monitor of 600 connections, which is more than one message takes."""
    monitor = Monitor(trust=TRUST)
    chain = Chain([Begin(), monitor])
    for number in range(600):
        await chain.request(call_of("client", f"c{number}"))
    return monitor, chain


async def first_state(events, size=600):
    told, seen = [], set()
    while len(seen) < size:
        told.append(await asyncio.wait_for(anext(events), 1))
        seen.update(told[-1].connections)
    return told


async def test_a_first_state_of_many_connections_comes_in_messages_that_anybody_takes(many):
    """What upstream's consumers read: the first state, and updates. All in one were 11.7 MB for 6,600 connections."""
    events = many[0].monitor(MonitorScopeSelector())
    told = await first_state(events)
    assert [each.type for each in told] == [INITIAL, *[UPDATE] * (len(told) - 1)]
    assert 1 < len(told) < 20
    assert max(len(codec.encode(each)) for each in told) <= DEFAULT_LIMITS.request
    await events.aclose()


async def test_whoever_asks_for_parts_learns_where_the_first_state_ends(many):
    events = many[0].monitor(MonitorScopeSelector(), in_parts=True)
    told = [*await first_state(events), await anext(events)]
    assert {each.type for each in told} == {INITIAL}
    assert [bool(each.connections) for each in told] == [*[True] * (len(told) - 1), False]
    await events.aclose()


async def test_what_changes_while_the_first_state_is_read_is_told_as_it_is_then(many):
    monitor, chain = many
    events = monitor.monitor(MonitorScopeSelector(), in_parts=True)
    first = await anext(events)
    monitor.report("c0", State.DOWN)  # was told
    monitor.report("c599", State.DOWN)  # was not yet
    await chain.close(call_of("client", "c598"))
    rest = await first_state(events, 599 - len(first.connections))
    told = {id_: each for event in rest for id_, each in event.connections.items()}
    assert "c0" in first.connections
    assert told["c599"].state == State.DOWN
    assert "c598" not in told
    assert (await anext(events)).connections == {}
    assert await next_of(events) == (UPDATE, {"c0": State.DOWN})
    await events.aclose()


async def test_who_does_not_read_costs_no_more_than_a_note_for_each_connection(many):
    monitor, chain = many
    events = monitor.monitor(MonitorScopeSelector(), Peer("spiffe://test.mesh/operator", b""), in_parts=True)
    await first_state(events)
    await anext(events)
    for _ in range(3):
        for number in range(600):
            await chain.request(call_of("client", f"c{number}"))
    (listener,) = monitor._listeners
    kept = {id(connection) for _, connection, _ in listener._news.values()}
    assert kept == {id(each) for each in monitor._connections.values()}
    await events.aclose()


async def test_all_of_many_connections_are_had_over_a_stream(many):
    monitors = Monitors(lambda target, selector: many[0].monitor(selector, in_parts=True))
    assert len(await monitors.present("unix:///nsmgr", MonitorScopeSelector())) == 600
    one = MonitorScopeSelector(path_segments=[PathSegment(id="c7-client")])
    assert [each.id for each in await monitors.present("unix:///nsmgr", one)] == ["c7"]
    none = MonitorScopeSelector(path_segments=[PathSegment(id="x")])
    assert await monitors.present("unix:///nsmgr", none) == []


async def test_a_monitor_tells_of_a_connection_that_was_to_be_reselected_that_it_is_up():
    """Also if this component had not heard of it before."""
    monitor = Monitor()
    await Chain([Begin(), monitor]).request(call("a", state=State.RESELECT_REQUESTED))
    async for event in monitor.monitor(MonitorScopeSelector()):
        assert [connection.state for connection in event.connections.values()] == [State.UP]
        break


async def test_a_monitor_gets_the_present_state_then_what_changes():
    monitor = Monitor()
    chain = Chain([Begin(), monitor])
    await chain.request(call("a", service="one", path=path("client", "server", index=1)))
    heard = []

    async def listen(selector):
        async for event in monitor.monitor(selector):
            heard.append((event.type, sorted(event.connections)))

    listening = [
        asyncio.ensure_future(listen(MonitorScopeSelector())),
        asyncio.ensure_future(listen(MonitorScopeSelector(network_services=["nothing"]))),
    ]
    await asyncio.sleep(1)
    assert heard == [
        (ConnectionEventType.INITIAL_STATE_TRANSFER, ["a"]),
        (ConnectionEventType.INITIAL_STATE_TRANSFER, []),
    ]
    await chain.request(call("b", path=path("client", "server", index=1)))
    await asyncio.sleep(1)
    await chain.close(call("a"))
    await asyncio.sleep(1)
    assert heard[2:] == [(ConnectionEventType.UPDATE, ["b"]), (ConnectionEventType.DELETE, ["a"])]
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    assert monitor._listeners == set()


async def test_a_slow_listener_gets_the_latest_state_and_holds_nobody_up():
    monitor = Monitor()
    chain = Chain([Begin(), monitor])
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    for number in range(1000):
        await chain.request(call("a", payload=str(number)))
    event = await anext(events)
    assert event.connections["a"].payload == "999"
    await events.aclose()


class Downstream:
    """The monitor of the component that connections went on to."""

    def __init__(self):
        self.queue, self.opened = asyncio.Queue(), []

    async def __call__(self, target, selector):
        self.opened.append((target, selector.path_segments[0].name))
        while (event := await self.queue.get()) is not None:
            yield event
        raise Unavailable("the stream broke")


class AsksNext(Element):
    async def request(self, call, rest):
        call.live.put(DOWNSTREAM, "tcp://next:1")
        return await rest.request(call)


async def test_events_from_further_on_are_passed_on_as_our_own():
    """One stream serves all connections that went there; when it breaks they are down."""
    downstream = Downstream()
    monitor = Monitor(Monitors(downstream))
    chain = Chain([Begin(), monitor, AsksNext()])

    def our_path(own_id, *behind, index=1):
        ours = path("client", own_id, *behind, index=index)
        ours.path_segments[1].name = "me"
        return ours

    for name in ("x", "y"):
        await chain.request(call(f"id-{name}", path=our_path(name)))
    await asyncio.sleep(1)
    assert downstream.opened == [("tcp://next:1", "me")]
    theirs = Connection(id="id-next", state=State.DOWN, path=our_path("x", "next", index=2))
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    await downstream.queue.put(ConnectionEvent(type=ConnectionEventType.UPDATE, connections={"id-next": theirs}))
    event = await anext(events)
    assert event.type == ConnectionEventType.UPDATE
    own = event.connections["id-x"]
    assert (own.id, own.path.index, own.state) == ("id-x", 1, State.DOWN)
    assert [s.name for s in own.path.path_segments] == ["client", "me", "next"]
    await downstream.queue.put(None)
    lost = [await anext(events), await anext(events)]
    assert {key: each.state for event in lost for key, each in event.connections.items()} == dict.fromkeys(
        ["id-x", "id-y"], State.DOWN
    )
    for event in lost:
        (each,) = event.connections.values()
        assert cause_in(each.path.path_segments[1].metrics).sentence.startswith(("next", "the next component"))
    await chain.request(call("id-y", path=our_path("y")))
    await asyncio.sleep(1)
    assert len(downstream.opened) == 2
    await events.aclose()
    await chain.aclose()


async def test_a_refresh_that_fails_is_told_as_down():
    downstream, fail = Downstream(), Fail()
    monitor = Monitor(Monitors(downstream))
    chain = Chain([Begin(), monitor, AsksNext(), fail])
    await chain.request(call("a", path=path("client", "me", index=1)))
    fail.errors = [Unavailable("no")]
    events = monitor.monitor(MonitorScopeSelector())
    await anext(events)
    with pytest.raises(Unavailable):
        await chain.request(call("a", path=path("client", "me", index=1)))
    assert (await anext(events)).connections["a"].state == State.DOWN
    await events.aclose()
    await chain.aclose()
