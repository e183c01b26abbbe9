"""Tells whoever listens how connections are: the present state, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    MonitorScopeSelector,
    PathSegment,
    State,
)
from nsm.apis.mechanisms import INODE_URL
from nsm.chains.core import (
    DEFAULT_LIMITS,
    Call,
    Element,
    Handler,
    InvalidRequest,
    Key,
    Limits,
    MeshError,
    Peer,
    Store,
    Tasks,
)
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection
from nsm.chains.model.matching import selects
from nsm.chains.policy import NO_TRUST, Trust, claims_of

from .idle import close_now


class RemoteEvents(Protocol):
    """Opens the monitor of the component at a target."""

    def __call__(self, target: str, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Its events for `selector`."""
        ...


DOWNSTREAM: Key[str] = Key("downstream target")
"""Where the client chain behind a server asked for the connection: set by what dials, read by the monitor."""
_MOST_SERVICES, _MOST_SEGMENTS = 64, 16
"""Of a selector, which is kept for as long as somebody listens; each event is compared with all of them."""
_A_WHILE = 5.0
"""Seconds that somebody has to be heard to be listened to again: who ends each stream at once gets no others."""
UNHEARD: Key[str] = Key("downstream target that is gone")
"""Where the connection went on to and nobody is heard any more: set by the monitor, read by what dials."""

REPORT: Key[Callable[[State], None]] = Key("report of a state")
"""Tells whoever listens that the connection has another state: set by the monitor, for what looks after wires."""


class Monitor(Element):
    """Serve the events of this component's connections, and relay those from further on.

    A listener gets the connections that its selector means as INITIAL_STATE_TRANSFER, also if there are none, then
    UPDATE and DELETE as they occur; one that reads slowly gets the latest state of each connection. If the
    connection went on to another component, that one is listened to in turn, and what it says of path, context and
    state is passed on as an UPDATE of our own connection; if it cannot be heard any more the state is DOWN. What no
    connection can be, by `limits`, is not passed on.

    A peer hears of the connections whose path it is on, as far as that is verified: who called and who answered, and
    who is further away if those may vouch for others by `trust`. So nobody has another one hear of what is not its own.
    Where nobody may vouch, what comes before is believed: clients of components further on would hear nothing there.
    The viewers of `trust` hear of all. Nobody gets the tokens of a path, and a viewer no name of a namespace.

    Nearly all events tell of what a call has just done, to a component whose call that was: one that relays asks for
    none of those (`monitor_others`), since the answer tells it the same.
    """

    def __init__(
        self, remote: RemoteEvents | None = None, trust: Trust = NO_TRUST, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._remote, self._trust, self._limits = remote, trust, limits
        self._connections: dict[str, Connection] = {}
        self._on_path: dict[str, frozenset[str]] = {}
        self._listeners: set[_Listener] = set()
        self._relays = Tasks("relays of events")
        self._downstream: dict[str, dict[str, Store]] = {}
        self._went_to: Key[str] = Key("relayed from")
        self._callers: Key[frozenset[str]] = Key("who called, and those that they may vouch for")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Tell of a success, and of the failure of what was up."""
        is_reselected = call.connection.state == State.RESELECT_REQUESTED
        try:
            connection = await rest.request(call)
        except BaseException:
            if call.live.get(self._went_to) is not None:
                self._set_down(call.live.connection_id)
            raise
        connection.state = State.UP  # a request to reselect is not any more what it was
        if (known := self._connections.get(connection.id)) is None:
            call.live.on_end(partial(self._delete, call.live))
            report: Callable[[State], None] = partial(self._report, call.live.connection_id)
            call.live.put(REPORT, report)
        self._on_path[connection.id] = self._callers_of(call, connection) | self._answerers_of(connection)
        is_told_otherwise = is_reselected or (known is not None and known.state != State.UP)
        self._update(connection, None if is_told_otherwise else _caller(call, connection))
        self._relay_from(call.live, connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Tell of the end, also if the Close failed."""
        try:
            await rest.close(call)
        finally:
            self._delete(call.live, _caller(call, call.connection))

    async def aclose(self) -> None:
        """Stop listening to others."""
        await self._relays.aclose()

    def monitor(self, selector: MonitorScopeSelector, peer: Peer | None = None) -> AsyncIterator[ConnectionEvent]:
        """The events that `selector` means and `peer` may hear of, without end; all of them for this process itself.

        Raises `InvalidRequest` for a selector that names more than anybody asks for.
        """
        return self._events(_Listener(selector, self._sight(peer)))

    def monitor_others(self, selector: MonitorScopeSelector, peer: Peer) -> AsyncIterator[ConnectionEvent]:
        """Likewise, but for what the answers to its own calls tell `peer`: those that it makes by a selected name."""
        return self._events(_Listener(selector, self._sight(peer), peer.spiffe_id))

    async def _events(self, listener: _Listener) -> AsyncIterator[ConnectionEvent]:
        self._listeners.add(listener)
        try:
            present = {key: shown for key, c in self._connections.items() if (shown := listener.shown(c)) is not None}
            yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER, connections=present)
            while True:
                for event in await listener.next():
                    yield event
        finally:
            self._listeners.discard(listener)

    def _sight(self, peer: Peer | None) -> Sight:
        """What `peer` sees of a connection."""
        is_viewer = peer is None or self._trust.viewers.matches(peer.spiffe_id)

        def sight(connection: Connection) -> Show | None:
            on_path = peer is None or peer.spiffe_id in self._on_path.get(connection.id, ())
            if not on_path and not is_viewer:
                return None
            return _all_of_it if on_path else _without_namespace

        return sight

    def _callers_of(self, call: Call, connection: Connection) -> frozenset[str]:
        """Those up to here that are verified; for a call of our own those of the client's."""
        subjects = _subjects(connection)[: connection.path.index + 1 if connection.path is not None else 0]
        if call.peer is None:
            known = call.live.get(self._callers)
            return known if known is not None else frozenset(subjects)
        verified = max(len(call.owner) - 1, 0) if self._trust.knows_somebody() else 0
        return call.live.put(self._callers, frozenset([*subjects[verified:], call.peer.spiffe_id]))

    def _answerers_of(self, connection: Connection) -> frozenset[str]:
        """Those behind us that are verified."""
        found: set[str] = set()
        for subject in _subjects(connection)[connection.path.index + 1 :] if connection.path is not None else ():
            found.add(subject)
            if not self._trust.matches(subject):
                break
        return frozenset(found - {""})

    def _update(self, connection: Connection, caller: _Caller | None = None) -> None:
        kept = self._connections[connection.id] = _without_tokens(connection)
        self._tell(ConnectionEventType.UPDATE, kept, caller)

    def _delete(self, store: Store, caller: _Caller | None = None) -> None:
        if (target := store.pop(self._went_to)) is not None:
            self._downstream.get(target, {}).pop(store.connection_id, None)
        connection = self._connections.pop(store.connection_id, None)
        if connection is not None:
            self._tell(ConnectionEventType.DELETE, connection, caller)
        self._on_path.pop(store.connection_id, None)

    def _tell(self, kind: ConnectionEventType, connection: Connection, caller: _Caller | None) -> None:
        for listener in self._listeners:
            if caller is not None and listener.is_told(caller):
                listener.forget(connection)
            else:
                listener.hear(kind, connection)

    def _set_down(self, connection_id: str) -> None:
        self._report(connection_id, State.DOWN)

    def _report(self, connection_id: str, state: State) -> None:
        connection = self._connections.get(connection_id)
        if connection is not None and connection.state != state:
            changed = codec.clone(connection)
            changed.state = state
            self._update(changed)

    def _relay_from(self, store: Store, connection: Connection) -> None:
        """Listen to the component that the connection went on to: once, however many connections went there."""
        target, former = store.get(DOWNSTREAM), store.pop(self._went_to)
        if former is not None and former != target:
            self._downstream.get(former, {}).pop(connection.id, None)
        if self._remote is None or target is None:
            return
        store.put(self._went_to, target)
        store.pop(UNHEARD)
        if target not in self._downstream:
            self._downstream[target] = {}
            work = self._relay(self._remote, target, _segment(connection).name)
            self._relays.spawn(work, name=f"relay of {target}")
        self._downstream[target][connection.id] = store

    async def _relay(self, remote: RemoteEvents, target: str, own_name: str) -> None:
        """Pass on what the component at `target` tells of connections with our segment, until it is heard no more.

        A connection to it ends with the SVIDs that it was made with. One that was heard for a while is listened to
        again: what it has is as before, and what it does not have, since it is another process, is down.
        """
        clock, is_again = asyncio.get_running_loop().time, False
        selector = MonitorScopeSelector(path_segments=[PathSegment(name=own_name)])
        while True:
            former, heard_since = set(self._downstream[target]) if is_again else set[str](), None
            try:
                async for event in remote(target, selector):
                    if heard_since is None:
                        heard_since = clock()
                        self._is_unheard(target, former - _segment_ids(event))
                    for connection in event.connections.values():
                        self._relay_event(target, event.type, connection)
                reason = "it has no more to tell"
            except MeshError as error:
                reason = str(error)
            if heard_since is None or clock() - heard_since < _A_WHILE or not self._downstream[target]:
                break
            is_again = True
        log.info("a peer is not heard any more", target=target, reason=reason)
        self._is_unheard(target, set(self._downstream[target]))
        del self._downstream[target]

    def _is_unheard(self, target: str, connection_ids: set[str]) -> None:
        for connection_id in connection_ids:
            if (store := self._downstream[target].pop(connection_id, None)) is not None:
                store.put(UNHEARD, target)
                self._set_down(connection_id)
                close_now(store)

    def _relay_event(self, target: str, kind: ConnectionEventType, theirs: Connection) -> None:
        known = self._concerned(target, theirs)
        if known is None:
            return
        if kind == ConnectionEventType.INITIAL_STATE_TRANSFER and theirs.state == known.state:
            return
        state = State.DOWN if kind == ConnectionEventType.DELETE else theirs.state
        if _says_nothing_new(known, theirs, state) or not _can_be(theirs, self._limits):
            return
        changed = codec.clone(known)
        changed.context, changed.state = theirs.context, state
        if theirs.path is not None and changed.path is not None:  # up to here the path is ours to tell
            behind = changed.path.index + 1
            changed.path.path_segments[behind:] = theirs.path.path_segments[behind:]
        self._update(changed)

    def _concerned(self, target: str, theirs: Connection) -> Connection | None:
        """Our connection that an event from further on is about: a path with several endpoints may pass here twice."""
        for segment in theirs.path.path_segments if theirs.path is not None else ():
            if segment.id in self._downstream.get(target, ()):
                known = self._connections.get(segment.id)
                if known is not None and _concerns(known, theirs):
                    return known
        return None


_Caller = tuple[str, str]
"""Whose call it is: the SPIFFE ID, and the name of its segment in the path."""


def _caller(call: Call, connection: Connection) -> _Caller | None:
    path = connection.path
    if call.peer is None or path is None or not 0 < path.index <= len(path.path_segments):
        return None
    return call.peer.spiffe_id, path.path_segments[path.index - 1].name


def _segment_ids(event: ConnectionEvent) -> set[str]:
    """Of all connections that it is about."""
    paths = [connection.path for connection in event.connections.values() if connection.path is not None]
    return {segment.id for path in paths for segment in path.path_segments}


def _segment(connection: Connection) -> PathSegment:
    assert connection.path is not None
    return connection.path.path_segments[connection.path.index]


def _concerns(own: Connection, theirs: Connection) -> bool:
    """Whether an event from further on is about our connection: our segment is in its path, and it is one behind us."""
    if own.path is None or theirs.path is None:
        return False
    index, segments = own.path.index, theirs.path.path_segments
    return len(segments) > index and segments[index].id == own.id and theirs.path.index in (index, index + 1)


def _says_nothing_new(known: Connection, theirs: Connection, state: State) -> bool:
    """Whether an event is of what came with the answer to our own call, as nearly all are: those need no more work."""
    if state != known.state or theirs.context != known.context:
        return False
    if theirs.path is None or known.path is None:
        return True
    behind = known.path.index + 1
    return theirs.path.path_segments[behind:] == known.path.path_segments[behind:]


def _can_be(connection: Connection, limits: Limits) -> bool:
    """Whether what a peer reports of a connection could be a connection's: it is passed on to whoever listens here."""
    try:
        check_connection(connection, limits)
    except InvalidRequest as error:
        log.info("a peer reports what no connection can be", reason=str(error))
        return False
    return True


def _subjects(connection: Connection) -> list[str]:
    """Whom each segment's token names; an empty text for what is no token."""
    segments = connection.path.path_segments if connection.path is not None else ()
    return [claims.subject if (claims := claims_of(segment.token)) is not None else "" for segment in segments]


def _without_tokens(connection: Connection) -> Connection:
    """A copy."""
    copy = codec.clone(connection)
    for segment in copy.path.path_segments if copy.path is not None else ():
        segment.token = ""
    return copy


def _all_of_it(connection: Connection) -> Connection:
    return connection


def _without_namespace(connection: Connection) -> Connection:
    """A copy, if there is something to leave out."""
    if connection.mechanism is None or INODE_URL not in connection.mechanism.parameters:
        return connection
    copy = codec.clone(connection)
    assert copy.mechanism is not None
    del copy.mechanism.parameters[INODE_URL]
    return copy


Show = Callable[[Connection], Connection]
Sight = Callable[[Connection], Show | None]
"""How much a listener sees of a connection; None: nothing."""


def _check_selector(selector: MonitorScopeSelector) -> None:
    for what, names, most in (
        ("network services", selector.network_services, _MOST_SERVICES),
        ("path segments", selector.path_segments, _MOST_SEGMENTS),
    ):
        if len(names) > most:
            raise InvalidRequest(f"the selector has {len(names)} {what}; at most {most} will do")


class _Listener:
    """What one monitor has not heard yet: the latest of each connection. `calls` is whose calls it need not hear of."""

    def __init__(self, selector: MonitorScopeSelector, sight: Sight, calls: str = "") -> None:
        _check_selector(selector)
        self._part = MonitorScopeSelector(path_segments=selector.path_segments)
        self._services, self._sight = frozenset(selector.network_services), sight
        self._calls = {(calls, segment.name) for segment in selector.path_segments} if calls else frozenset[_Caller]()
        self._news: dict[str, tuple[ConnectionEventType, Connection]] = {}
        self._wake = asyncio.Event()

    def shown(self, connection: Connection) -> Connection | None:
        """The connection as this listener sees it; None if it is not meant, or not to be seen."""
        if self._services and connection.network_service not in self._services:
            return None
        show = self._sight(connection)
        return show(connection) if show is not None and selects(self._part, connection) else None

    def hear(self, kind: ConnectionEventType, connection: Connection) -> None:
        if (shown := self.shown(connection)) is not None:
            self._news.pop(connection.id, None)
            self._news[connection.id] = kind, shown
            self._wake.set()

    def is_told(self, caller: _Caller) -> bool:
        """Whether the answer to a call of `caller` goes to who listens here."""
        return caller in self._calls

    def forget(self, connection: Connection) -> None:
        """What was not told yet of a connection is not true any more."""
        self._news.pop(connection.id, None)

    async def next(self) -> list[ConnectionEvent]:
        await self._wake.wait()
        self._wake.clear()
        news, self._news = self._news, {}
        return [ConnectionEvent(type=kind, connections={key: c}) for key, (kind, c) in news.items()]
