"""Tells whoever listens how connections are: the present state, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from nsm.apis import codec
from nsm.apis.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    MonitorScopeSelector,
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
    Peer,
    Store,
)
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection
from nsm.chains.model.matching import selects
from nsm.chains.policy import NO_TRUST, Trust, claims_of
from nsm.chains.transport import Monitors, Subscription

from .idle import close_now

DOWNSTREAM: Key[str] = Key("downstream target")
"""Where the client chain behind a server asked for the connection: set by what dials, read by the monitor."""
UNHEARD: Key[str] = Key("downstream target that is gone")
"""Where the connection went on to and nobody is heard any more: set by the monitor, read by what dials."""
REPORTER: Key[Reporter] = Key("reporter of states")
"""What an element of a server has a state of the connection reported by."""
_MOST_SERVICES, _MOST_SEGMENTS = 64, 16
"""Of a selector, which is kept for as long as somebody listens; each event is compared with all of them."""
_PART = 3 / 4
"""How much of the longest message that anybody takes (`Limits.request`) a part of the first state fills."""


class Monitor(Element):
    """Serve the events of this component's connections, and relay those from further on.

    A listener gets the connections that its selector means as INITIAL_STATE_TRANSFER, also if there are none, then
    UPDATE and DELETE as they occur; one that reads slowly gets the latest state of each connection. More than one
    message takes comes in parts, the rest of them as UPDATE; to whoever asks for parts as INITIAL_STATE_TRANSFER, and
    an empty one at the end. If the connection went on to another component, that one is listened to in turn, and what
    it says of path, context and state is passed on as an UPDATE of our own connection; if it cannot be heard any more
    the state is DOWN. What no connection can be, by `limits`, is not passed on.

    A peer hears of the connections whose path it is on, as far as that is verified: who called and who answered, and
    who is further away if those may vouch for others by `trust`. So nobody has another one hear of what is not its own.
    Where nobody may vouch, what comes before is believed: clients of components further on would hear nothing there.
    The viewers of `trust` hear of all. Nobody gets the tokens of a path, and a viewer no name of a namespace.

    Nearly all events tell of what a call has just done, to a component whose call that was: one that relays asks for
    none of those (`monitor_others`), since the answer tells it the same.
    """

    def __init__(
        self, monitors: Monitors | None = None, trust: Trust = NO_TRUST, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._monitors, self._trust, self._limits = monitors, trust, limits
        self._connections: dict[str, Connection] = {}
        self._sizes: dict[str, int] = {}
        self._on_path: dict[str, frozenset[str]] = {}
        self._listeners: set[_Listener] = set()
        self._giving = asyncio.Lock()
        self._went_to: Key[Subscription] = Key("relayed from")
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
            call.live.put(REPORTER, self)
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
        if self._monitors is not None:
            await self._monitors.aclose()

    def report(self, connection_id: str, state: State) -> None:
        """Have whoever listens told of a state that is to stand until the next request; for a known connection."""
        connection = self._connections.get(connection_id)
        if connection is not None and connection.state != state:
            changed = codec.clone(connection)
            changed.state = state
            self._update(changed)

    def monitor(
        self, selector: MonitorScopeSelector, peer: Peer | None = None, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """The events that `selector` means and `peer` may hear of, without end; all of them for this process itself.

        Raises `InvalidRequest` for a selector that names more than anybody asks for.
        """
        return self._events(_Listener(selector, self._sight(peer)), in_parts)

    def monitor_others(
        self, selector: MonitorScopeSelector, peer: Peer, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """Likewise, but for what the answers to its own calls tell `peer`: those that it makes by a selected name."""
        return self._events(_Listener(selector, self._sight(peer), peer.spiffe_id), in_parts)

    async def _events(self, listener: _Listener, in_parts: bool) -> AsyncIterator[ConnectionEvent]:
        self._listeners.add(listener)
        try:
            kind, parts = ConnectionEventType.INITIAL_STATE_TRANSFER, iter(self._first_state(listener))
            while (part := await self._next_part(parts)) is not None:
                yield ConnectionEvent(type=kind, connections=part)
                kind = kind if in_parts else ConnectionEventType.UPDATE
            if in_parts:
                yield ConnectionEvent(type=kind)
            while True:
                yield await listener.next()
        finally:
            self._listeners.discard(listener)

    async def _next_part(self, parts: Iterator[dict[str, Connection]]) -> dict[str, Connection] | None:
        """The next one; of many listeners one gets its part at a time, and everything else its turn in between."""
        async with self._giving:
            await asyncio.sleep(0)
            return next(parts, None)

    def _first_state(self, listener: _Listener) -> Iterable[dict[str, Connection]]:
        """What `listener` is shown, each connection as it is when its part is sent; one part at least."""
        part: dict[str, Connection] = {}
        size, most, parts = 0, int(_PART * self._limits.request), 0
        for connection_id in [*self._connections]:
            if (connection := self._connections.get(connection_id)) is None:
                continue
            if (shown := listener.shown(connection)) is None:
                continue
            if part and size + self._size(connection) > most:
                yield part
                part, size, parts = {}, 0, parts + 1
            part[connection_id] = shown
            size += self._size(connection)
            listener.forget(connection)
        if part or not parts:
            yield part

    def _size(self, connection: Connection) -> int:
        """Its bytes in an event."""
        if connection.id not in self._sizes:
            self._sizes[connection.id] = len(codec.encode(connection)) + len(connection.id) + 16
        return self._sizes[connection.id]

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
        verified = max(len(call.owner) - 1, 0) if self._trust.has_vouchers() else 0
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
        self._sizes.pop(connection.id, None)
        self._tell(ConnectionEventType.UPDATE, kept, caller)

    def _delete(self, store: Store, caller: _Caller | None = None) -> None:
        if (subscription := store.pop(self._went_to)) is not None:
            subscription.end()
        connection = self._connections.pop(store.connection_id, None)
        self._sizes.pop(store.connection_id, None)
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
        self.report(connection_id, State.DOWN)

    def _relay_from(self, store: Store, connection: Connection) -> None:
        """Listen to the component that the connection went on to."""
        target, former = store.get(DOWNSTREAM), store.get(self._went_to)
        if former is not None and former.is_live and former.target == target:
            return
        if former is not None:
            former.end()
            store.pop(self._went_to)
        if self._monitors is not None and target is not None:
            store.pop(UNHEARD)
            store.put(self._went_to, self._monitors.listen(target, connection, _Relay(self, store, target)))

    def lost(self, store: Store, target: str) -> None:
        """What the connection went on to is heard no more."""
        store.put(UNHEARD, target)
        self._set_down(store.connection_id)
        close_now(store)

    def relay(self, store: Store, kind: ConnectionEventType, theirs: Connection) -> None:
        """Pass on what the component that the connection went on to reports of it."""
        known = self._connections.get(store.connection_id)
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


class Reporter(Protocol):
    """Reports states of connections to whoever listens."""

    def report(self, connection_id: str, state: State) -> None:
        """Have a state stand until the next request of the connection, if there is such a one."""
        ...


class _Relay:
    """Listens to the component that one connection went on to."""

    __slots__ = ("_monitor", "_store", "_target")

    def __init__(self, monitor: Monitor, store: Store, target: str) -> None:
        self._monitor, self._store, self._target = monitor, store, target

    def heard(self, kind: ConnectionEventType, theirs: Connection) -> None:
        self._monitor.relay(self._store, kind, theirs)

    def lost(self, reason: str) -> None:
        del reason  # the log has it
        self._monitor.lost(self._store, self._target)


_Caller = tuple[str, str]
"""Whose call it is: the SPIFFE ID, and the name of its segment in the path."""


def _caller(call: Call, connection: Connection) -> _Caller | None:
    path = connection.path
    if call.peer is None or path is None or not 0 < path.index <= len(path.path_segments):
        return None
    return call.peer.spiffe_id, path.path_segments[path.index - 1].name


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
        self._news: dict[str, tuple[ConnectionEventType, Connection, Show]] = {}
        self._wake = asyncio.Event()

    def shown(self, connection: Connection) -> Connection | None:
        """The connection as this listener sees it; None if it is not meant, or not to be seen."""
        show = self._show(connection)
        return None if show is None else show(connection)

    def hear(self, kind: ConnectionEventType, connection: Connection) -> None:
        if (show := self._show(connection)) is not None:
            self._news.pop(connection.id, None)
            self._news[connection.id] = kind, connection, show
            self._wake.set()

    def is_told(self, caller: _Caller) -> bool:
        """Whether the answer to a call of `caller` goes to who listens here."""
        return caller in self._calls

    def forget(self, connection: Connection) -> None:
        """What was not told yet of a connection is not true any more."""
        self._news.pop(connection.id, None)

    async def next(self) -> ConnectionEvent:
        """The oldest of what is new; how that connection is by then."""
        while not self._news:
            self._wake.clear()
            await self._wake.wait()
        kind, connection, show = self._news.pop(next(iter(self._news)))
        return ConnectionEvent(type=kind, connections={connection.id: show(connection)})

    def _show(self, connection: Connection) -> Show | None:
        if self._services and connection.network_service not in self._services:
            return None
        show = self._sight(connection)
        return show if show is not None and selects(self._part, connection) else None
