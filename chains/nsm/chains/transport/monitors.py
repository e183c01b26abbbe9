"""Peers' reports about connections: one monitor stream for each peer, shared by all listeners in this process.

The selector of a stream is the name of our own path segment, which all connections have that pass this component on
the way to the peer. Upstream's default monitor policy requires connection IDs in the selector. A peer that refuses the
name, or shows no connection by name but does so by ID, gets one stream for each connection, and that is remembered.

A stream that ends after a while is opened again at once, since channels end with the SVIDs that they were made with. If
that fails, or a stream ends soon, listeners are notified that the peer is lost; they listen again after their next
Request. Streams to a peer that ends each of them at once are opened less and less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, Protocol, cast

from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    MonitorScopeSelector,
    PathSegment,
    State,
)
from nsm.chains.core import Backoff, MeshError, Refused, Tasks, Unsupported
from nsm.chains.logs import log

A_WHILE = 5.0
"""Seconds after which a stream that ends is opened again at once."""
SETTLING = 0.5
"""Seconds without further parts after which the first state of a peer that does not mark its end is complete."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a stream to a peer is opened whose last two ended soon, growing with each that does."""
LINGER = 10.0
"""Seconds that a stream by name stays open after its last connection: the next one needs it again."""
PATIENCE = 3.0
"""Seconds within which a stream that is opened again has to deliver its first event."""
_MOST_REMEMBERED = 16_384
"""The number of peers and connections whose way of monitoring, and next time for it, are remembered."""
_INITIAL = ConnectionEventType.INITIAL_STATE_TRANSFER


class RemoteEvents(Protocol):
    """Opens the monitor of the component at a target."""

    def __call__(self, target: str, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Its events for `selector`."""
        ...


class Listener(Protocol):
    """Receives what a peer reports about one connection."""

    def heard(self, kind: ConnectionEventType, theirs: Connection) -> None:
        """The peer reported the connection; `theirs` is how the peer has it."""
        ...

    def lost(self, reason: str) -> None:
        """The stream broke, or the peer no longer has the connection: no further reports follow."""
        ...


class Subscription:
    """One listener for one connection at one peer."""

    __slots__ = ("_peer", "connection_id", "index", "is_expected", "listener", "target")

    def __init__(self, peer: _Peer, connection: Connection, listener: Listener) -> None:
        assert connection.path is not None
        self._peer: _Peer | None = peer
        self.target, self.connection_id, self.index = peer.target, connection.id, connection.path.index
        self.listener, self.is_expected = listener, False

    @property
    def is_live(self) -> bool:
        """Whether reports may still arrive."""
        return self._peer is not None

    def end(self) -> None:
        """Stop listening."""
        if self._peer is not None:
            self._peer.leave(self)
            self._peer = None

    def lose(self, reason: str) -> None:
        """End it because the peer is lost, and notify the listener."""
        if self._peer is not None:
            self.end()
            self.listener.lost(reason)


class Monitors:
    """The monitor streams of this process, by peer.

    Listeners receive only valid events: for a connection that they listen to, with a possible path index, and with a
    known type and state.
    """

    def __init__(self, remote: RemoteEvents) -> None:
        self._remote, self._streams = remote, _Streams(remote)

    def __len__(self) -> int:
        """The number of streams, open or about to be."""
        return len(self._streams.tasks)

    def listen(self, target: str, connection: Connection, listener: Listener) -> Subscription:
        """Have `listener` receive the reports of the component at `target` about `connection`, which passed there.

        The connection is this component's version: its path's index points at our own segment.
        """
        return self._streams.of(target, _own_segment(connection).name).join(connection, listener)

    async def present(self, target: str, selector: MonitorScopeSelector) -> list[Connection]:
        """All connections that the component at `target` shows for `selector` now.

        Raises the peer's error, and `Unavailable`; it has no time limit.
        """
        return await _present(self._remote, target, selector)

    async def aclose(self) -> None:
        """End all streams without notifying listeners."""
        await self._streams.tasks.aclose()


async def _present(remote: RemoteEvents, target: str, selector: MonitorScopeSelector) -> list[Connection]:
    found: dict[str, Connection] = {}
    is_exact = any(segment.id for segment in selector.path_segments)
    async with aclosing(cast(Any, remote(target, selector))) as events:
        while True:
            try:
                async with asyncio.timeout(SETTLING if found else None):
                    event = await anext(events, None)
            except TimeoutError:
                break
            if event is None or event.type != _INITIAL or not event.connections:
                break
            found |= event.connections
            if is_exact:
                break
    return [*found.values()]


class _Streams:
    """The peers, facts remembered about them, and the tasks that read their streams."""

    def __init__(self, open_events: RemoteEvents) -> None:
        self.open, self.tasks = open_events, Tasks("monitors of peers")
        self._peers: dict[tuple[str, str], _Peer] = {}
        self._by_id: dict[str, None] = {}
        self._rests: dict[tuple[str, str, str], _Rest] = {}

    def of(self, target: str, name: str) -> _Peer:
        if (peer := self._peers.get((target, name))) is None:
            peer = self._peers[target, name] = _Peer(self, target, name)
        return peer

    def forget(self, peer: _Peer) -> None:
        if self._peers.get((peer.target, peer.name)) is peer:
            del self._peers[peer.target, peer.name]

    def start(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        return self.tasks.spawn(work, name=f"monitor of {what}")

    def wants_ids(self, target: str) -> bool:
        return target in self._by_id

    def use_ids(self, target: str) -> None:
        self._by_id[target] = None
        _trim(self._by_id)
        log.info("a peer is monitored by the ids of connections: it shows nothing by name", target=target)

    def rest_of(self, stream: tuple[str, str, str]) -> _Rest:
        if stream not in self._rests:
            self._rests[stream] = _Rest()
            _trim(self._rests)
        return self._rests[stream]


class _Rest:
    """When a peer may be asked for a stream again, after how its last ones ended."""

    def __init__(self) -> None:
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._soon, self._until = 0, 0.0

    async def over(self) -> None:
        await asyncio.sleep(max(0.0, self._until - _now()))

    def was_heard(self) -> None:
        self._soon = 0
        self._backoff.reset()

    def ended_soon(self) -> None:
        self._soon += 1
        if self._soon > 1:
            self._until = _now() + self._backoff.next()


class _Peer:
    """The monitoring of one component: its listeners, and one stream, or one for each connection."""

    def __init__(self, streams: _Streams, target: str, name: str) -> None:
        self.streams, self.target, self.name = streams, target, name
        self._listening: dict[str, list[Subscription]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lingering: asyncio.TimerHandle | None = None
        self._is_told = False

    def join(self, connection: Connection, listener: Listener) -> Subscription:
        subscription = Subscription(self, connection, listener)
        self._listening.setdefault(connection.id, []).append(subscription)
        self._stream_for(connection.id)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The stream by name stays for others, and until the last one has left; one by id ends."""
        left = self._listening.get(subscription.connection_id, [])
        if subscription in left:
            left.remove(subscription)
        if not left:
            self._listening.pop(subscription.connection_id, None)
            self._end(subscription.connection_id)
        if not self._listening and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._end_if_left)

    def _end_if_left(self) -> None:
        self._lingering = None
        if not self._listening:
            self.streams.forget(self)
            self._end("")

    def ended(self, key: str) -> None:
        """A stream has ended by itself: a new listener needs a new one."""
        self._tasks.pop(key, None)

    def by_id(self) -> None:
        """From now on one stream for each connection."""
        self.streams.use_ids(self.target)
        for connection_id in [*self._listening]:
            self._stream_for(connection_id)
        self._end("")

    def try_id(self, connection_id: str) -> None:
        """Find out whether a peer that shows nothing by name does so by id."""
        self.streams.start(self._try_id(connection_id), f"{connection_id} at {self.target}")

    async def _try_id(self, connection_id: str) -> None:
        selector = MonitorScopeSelector(path_segments=[PathSegment(name=self.name, id=connection_id)])
        with suppress(MeshError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                if await _present(self.streams.open, self.target, selector):
                    self.by_id()

    def subscriptions(self, connection_id: str) -> list[Subscription]:
        """The listeners of the connection, or all of them for an empty id."""
        if connection_id:
            return [*self._listening.get(connection_id, ())]
        return [each for found in self._listening.values() for each in found]

    def concerned(self, theirs: Connection) -> Iterator[Subscription]:
        """The listeners for an event: a path with several endpoints may pass here twice."""
        if theirs.path is None:
            return
        segments, place = theirs.path.path_segments, theirs.path.index
        for index, segment in enumerate(segments):
            if place in (index, index + 1):
                for each in self._listening.get(segment.id, ()):
                    if each.index == index:
                        yield each

    def tell_once(self, what: str, **values: Any) -> None:
        """Log odd behaviour of this peer, the first time."""
        if not self._is_told:
            self._is_told = True
            log.warning("a monitor event is ignored", target=self.target, reason=what, **values)

    def _stream_for(self, connection_id: str) -> None:
        key = connection_id if self.streams.wants_ids(self.target) else ""
        if key not in self._tasks:
            selector = MonitorScopeSelector(path_segments=[PathSegment(name=self.name, id=key)])
            what = f"{key} at {self.target}" if key else self.target
            self._tasks[key] = self.streams.start(_Feed(self, key, selector).run(), what)

    def _end(self, key: str) -> None:
        if (task := self._tasks.pop(key, None)) is not None and task is not asyncio.current_task():
            task.cancel()


class _Feed:
    """One stream to a peer, reopened as often as needed: by the id of a connection, or for None by name."""

    def __init__(self, peer: _Peer, connection_id: str, selector: MonitorScopeSelector) -> None:
        self._peer, self._id, self._selector = peer, connection_id, selector
        self._rest = peer.streams.rest_of((peer.target, peer.name, connection_id))
        self._shown: set[str] | None = set()
        self._settling: asyncio.TimerHandle | None = None
        self._is_again = False

    async def run(self) -> None:
        """Read, until the peer is lost or the last listener stops."""
        await self._rest.over()
        while True:
            heard_since, reason = await self._hear()
            if self._is_left_to_others():
                return
            if heard_since is None or _now() - heard_since < A_WHILE or not self._peer.subscriptions(self._id):
                break
            self._rest.was_heard()
            self._is_again = True
        self._rest.ended_soon()
        self._peer.ended(self._id)
        subscriptions = self._peer.subscriptions(self._id)
        if subscriptions:
            count, target = len(subscriptions), self._peer.target
            log.info("a peer is no longer monitored", target=target, reason=reason, connections=count)
        for each in subscriptions:
            each.lose(reason)

    def _is_left_to_others(self) -> bool:
        """Whether the connections are monitored by their ids now."""
        return not self._id and self._peer.streams.wants_ids(self._peer.target)

    async def _hear(self) -> tuple[float | None, str]:
        """One stream from its beginning to its end: since when events arrived, and why it ended."""
        heard_since: float | None = None
        expected = self._peer.subscriptions(self._id)
        for each in expected:
            each.is_expected = True
        self._shown = set()
        try:
            async with aclosing(cast(Any, self._peer.streams.open(self._peer.target, self._selector))) as events:
                async with asyncio.timeout(PATIENCE if self._is_again else None):
                    event: ConnectionEvent | None = await anext(events, None)
                while event is not None and not self._is_left_to_others():
                    heard_since = _now() if heard_since is None else heard_since
                    self._take(event)
                    event = await anext(events, None)
            return heard_since, "it ended the stream"
        except TimeoutError:
            return None, f"it sent no event within {PATIENCE} s"
        except Refused as error:
            return await self._refused(heard_since, error)
        except Unsupported as error:
            return await self._not_monitored(error)
        except MeshError as error:
            return heard_since, str(error)
        finally:
            self._settle_later(None)

    async def _refused(self, heard_since: float | None, error: Refused) -> tuple[float | None, str]:
        """By name: switch to ids. By id: a restarted peer knows none; one that never reported will not."""
        if not self._id:
            self._peer.by_id()
        elif not self._is_again:
            return await self._not_monitored(error)
        return heard_since, str(error)

    async def _not_monitored(self, error: MeshError) -> tuple[float | None, str]:
        """It reports nothing, which does not mean that anything is lost; wait until the last listener stops."""
        self._peer.tell_once("it cannot be monitored", error=str(error))
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def _take(self, event: ConnectionEvent) -> None:
        if event.type not in _KINDS:
            self._peer.tell_once(f"its kind is unknown: {event.type}")
            return
        if self._shown is not None:
            self._first_state(event)
        for theirs in event.connections.values():
            if _is_known(theirs):
                for each in [*self._peer.concerned(theirs)]:
                    each.listener.heard(event.type, theirs)
            else:
                self._peer.tell_once(f"its state is unknown: {theirs.state}", connection=theirs.id)

    def _first_state(self, event: ConnectionEvent) -> None:
        """Collect the first state, until it is complete."""
        assert self._shown is not None
        if event.type == _INITIAL and event.connections:
            paths = [each.path for each in event.connections.values() if each.path is not None]
            self._shown.update(segment.id for path in paths for segment in path.path_segments)
            if self._id:
                self._judge()
            else:
                self._settle_later(SETTLING)
        else:
            self._judge(may_want_ids=event.type == _INITIAL)

    def _settle_later(self, delay: float | None) -> None:
        if self._settling is not None:
            self._settling.cancel()
        loop = asyncio.get_running_loop()
        self._settling = None if delay is None else loop.call_later(delay, self._judge)

    def _judge(self, *, may_want_ids: bool = True) -> None:
        """The first state is complete: connections that the peer had before, and has no longer, are lost."""
        shown, self._shown = self._shown, None
        self._settle_later(None)
        if shown is None:
            return
        expected = [each for each in self._peer.subscriptions(self._id) if each.is_expected]
        missing = [each for each in expected if each.connection_id not in shown]
        if self._is_again:
            for each in missing:
                each.lose("the peer no longer has the connection")
        elif may_want_ids and not self._id and missing and len(missing) == len(expected):
            self._peer.try_id(missing[0].connection_id)


_KINDS, _STATES = frozenset(ConnectionEventType), frozenset(State)


def _is_known(theirs: Connection) -> bool:
    return theirs.state in _STATES


def _own_segment(connection: Connection) -> PathSegment:
    assert connection.path is not None
    return connection.path.path_segments[connection.path.index]


def _trim(remembered: dict[Any, Any]) -> None:
    while len(remembered) > _MOST_REMEMBERED:
        del remembered[next(iter(remembered))]


def _now() -> float:
    return asyncio.get_running_loop().time()
