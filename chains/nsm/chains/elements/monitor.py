"""Reports the states of connections to monitors: the current state, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Protocol

from nsm.apis import codec, mechanisms
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
    TRANSPORT,
    Call,
    Element,
    Handler,
    InvalidRequest,
    Key,
    Limits,
    MeshError,
    Peer,
    Store,
    counts,
)
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection
from nsm.chains.model.causes import (
    BEING_REPAIRED,
    NAMESPACE_GONE,
    PEER_CLOSED,
    PEER_LOST,
    SETUP_MS,
    Cause,
    cause_in,
    remove_cause,
)
from nsm.chains.model.matching import selects
from nsm.chains.policy import NO_TRUST, Trust, claims_of
from nsm.chains.transport import Monitors, Subscription

from .attempts import Attempts, cause_of
from .idle import close_now
from .try_candidates import with_name

CONNECTIONS = counts.Reading("nsm_connections", "Connections, by their mechanism here", "mechanism", "state")
_STATES = {
    State.UP: "up",
    State.DOWN: "down",
    State.REFRESH_REQUESTED: "refresh requested",
    State.RESELECT_REQUESTED: "reselect requested",
}
DOWNSTREAM: Key[str] = Key("downstream target")
"""Where the client chain behind a server requested the connection: set by `Dial`, read by the monitor."""
UNHEARD: Key[str] = Key("downstream target that is gone")
"""Where the connection went on to, if that component is unresponsive: set by the monitor, read by `Dial`."""
REPORTER: Key[Reporter] = Key("reporter of states")
"""Lets an element of a server report a state of the connection."""
_MOST_SERVICES, _MOST_SEGMENTS = 64, 16
"""Limits of a selector, which is kept for as long as the monitor runs; each event is compared with all of them."""
_TRANSPORTS = f" ({TRANSPORT})"
_AGAIN = 5.0
"""Seconds after which the same event is reported again."""
_PART = 3 / 4
"""The part of the longest accepted message (`Limits.request`) that a part of the first state fills."""


class Monitor(Element):
    """Serve the events of this component's connections, and relay those of the components behind.

    A listener receives the connections that match its selector as INITIAL_STATE_TRANSFER, even if there are none, then
    UPDATE and DELETE as they occur; one that reads slowly gets the latest state of each connection. A first state that
    exceeds one message is sent in parts, the rest of them as UPDATE; to a listener that requests parts as
    INITIAL_STATE_TRANSFER, with an empty one at the end. If the connection went on to another component, that one is
    monitored in turn, and path, context and state that it reports are passed on as an UPDATE of our own connection; if
    it becomes unresponsive the state is DOWN. Reports that are invalid by `limits` are not passed on.

    A peer receives the connections whose path it is on, as far as that is verified: the caller, the component that
    answered, and those further away if these may vouch for others by `trust`. So no component can have others receive
    connections that are not theirs. If no component may vouch, the path before the caller is believed: clients of
    components further on would receive nothing otherwise. The viewers of `trust` receive all connections. No peer gets
    the tokens of a path, and no viewer the name of a namespace.

    Nearly all events follow from a call that has just ended, and go to the component that made it: one that relays
    requests none of those (`monitor_others`), since the answer contains the same. It gets no events of connections that
    others request here either: in a chain of services it is on their path, too.
    """

    def __init__(
        self,
        monitors: Monitors | None = None,
        trust: Trust = NO_TRUST,
        limits: Limits = DEFAULT_LIMITS,
        attempts: Attempts | None = None,
    ) -> None:
        self._monitors, self._trust, self._limits, self._attempts = monitors, trust, limits, attempts
        if attempts is not None:
            attempts.tell = self._tell_attempt
        self._connections: dict[str, Connection] = {}
        CONNECTIONS.of(self, Monitor._mechanisms_and_states)
        self._sizes: dict[str, int] = {}
        self._on_path: dict[str, frozenset[str]] = {}
        self._listeners: set[_Listener] = set()
        self._giving = asyncio.Lock()
        self._went_to: Key[Subscription] = Key("relayed from")
        self._callers: Key[frozenset[str]] = Key("callers, and those that they may vouch for")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Report a success, and the failure of a connection that was up."""
        is_reselected, began = call.connection.state == State.RESELECT_REQUESTED, perf_counter()
        try:
            connection = await rest.request(call)
        except BaseException as error:
            if call.live.get(self._went_to) is not None:
                self._set_down(call.live.connection_id, _why(error))
            raise
        connection.state = State.UP  # a request to reselect ends with its success
        if (known := self._connections.get(connection.id)) is None:
            call.live.on_end(partial(self._delete, call.live))
            call.live.put(REPORTER, self)
            _note_time(connection, perf_counter() - began, is_new=is_reselected)
        self._on_path[connection.id] = self._callers_of(call, connection) | self._answerers_of(connection)
        is_told_otherwise = is_reselected or (known is not None and known.state != State.UP)
        self._update(connection, None if is_told_otherwise else _caller(call, connection))
        self._relay_from(call.live, connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Report the end, even if the Close failed."""
        try:
            await rest.close(call)
        finally:
            self._delete(call.live, _caller(call, call.connection))

    async def aclose(self) -> None:
        """Stop monitoring others."""
        if self._monitors is not None:
            await self._monitors.aclose()

    def _mechanisms_and_states(self) -> Iterator[tuple[str, str]]:
        """What `CONNECTIONS` counts."""
        for connection in self._connections.values():
            kind = connection.mechanism.type if connection.mechanism is not None else ""
            yield kind if kind in mechanisms.TYPES else "other", _STATES.get(connection.state, "other")

    def report(self, connection_id: str, state: State | None, cause: Cause | None = None) -> None:
        """Report a state that stays until the next request, or None for the same one, and why; for a known connection.

        A cause that was reported before is not reported again.
        """
        connection = self._connections.get(connection_id)
        if connection is None:
            return
        is_news = cause is not None and _is_news(cause, connection, is_event=state is None)
        if is_news or state not in (None, connection.state):
            changed = codec.clone(connection)
            changed.state = connection.state if state is None else state
            _set_cause(changed, cause)
            self._update(changed)

    def report_repair(self, connection_id: str, fault: str) -> None:
        """Report that this component repairs the wire of a known connection; with an empty `fault`, that it has."""
        if (connection := self._connections.get(connection_id)) is not None:
            changed = codec.clone(connection)
            set_fault(changed, fault)
            self._update(changed)

    def monitor(
        self, selector: MonitorScopeSelector, peer: Peer | None = None, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """The events that match `selector` and that `peer` may receive, endlessly; all events for this process itself.

        Raises `InvalidRequest` for a selector that names too many.
        """
        return self._events(_Listener(selector, self._sight(peer)), in_parts)

    def monitor_others(
        self, selector: MonitorScopeSelector, peer: Peer, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """The same, without those that `peer` learns from answers to its own calls: those made by a selected name.

        After the first state, there are no events of connections that other names request here.
        """
        return self._events(_Listener(selector, self._sight(peer), peer.spiffe_id), in_parts)

    def monitor_attempts(
        self, selector: MonitorScopeSelector, peer: Peer, *, in_parts: bool = False
    ) -> AsyncIterator[ConnectionEvent]:
        """The same as `monitor`; a viewer receives besides what was tried for connections that do not exist.

        See `Attempts` for how they look.
        """
        listener = _Listener(selector, self._sight(peer))
        listener.sees_attempts = self._trust.viewers.matches(peer.spiffe_id)
        return self._events(listener, in_parts)

    async def _events(self, listener: _Listener, in_parts: bool) -> AsyncIterator[ConnectionEvent]:
        self._listeners.add(listener)
        try:
            kind, parts = ConnectionEventType.INITIAL_STATE_TRANSFER, iter(self._first_state(listener))
            while (part := await self._next_part(parts)) is not None:
                yield ConnectionEvent(type=kind, connections=part)
                kind = kind if in_parts else ConnectionEventType.UPDATE
            if in_parts:
                yield ConnectionEvent(type=kind)
            if listener.sees_attempts and self._attempts is not None:
                for each in self._attempts.all():
                    listener.hear(ConnectionEventType.UPDATE, each)
            while True:
                yield await listener.next()
        finally:
            self._listeners.discard(listener)

    async def _next_part(self, parts: Iterator[dict[str, Connection]]) -> dict[str, Connection] | None:
        """The next event; listeners get their parts one at a time, and other work its turn in between."""
        async with self._giving:
            await asyncio.sleep(0)
            return next(parts, None)

    def _first_state(self, listener: _Listener) -> Iterable[dict[str, Connection]]:
        """The first state for `listener`, each connection as it is when its part is sent; at least one part."""
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
        """A connection as `peer` sees it."""
        is_viewer = peer is None or self._trust.viewers.matches(peer.spiffe_id)

        def sight(connection: Connection) -> Show | None:
            on_path = peer is None or peer.spiffe_id in self._on_path.get(connection.id, ())
            if not on_path and not is_viewer:
                return None
            return _all_of_it if on_path else _without_namespace

        return sight

    def _callers_of(self, call: Call, connection: Connection) -> frozenset[str]:
        """The verified components up to here; for a call of our own those of the client's."""
        subjects = _subjects(connection)[: connection.path.index + 1 if connection.path is not None else 0]
        if call.peer is None:
            known = call.live.get(self._callers)
            return known if known is not None else frozenset(subjects)
        verified = max(len(call.owner) - 1, 0) if self._trust.has_vouchers() else 0
        return call.live.put(self._callers, frozenset([*subjects[verified:], call.peer.spiffe_id]))

    def _answerers_of(self, connection: Connection) -> frozenset[str]:
        """The verified components behind us."""
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

    def _tell_attempt(self, kind: ConnectionEventType, attempt: Connection) -> None:
        for listener in self._listeners:
            if listener.sees_attempts:
                listener.hear(kind, attempt)

    def _set_down(self, connection_id: str, cause: Cause | None = None) -> None:
        self.report(connection_id, State.DOWN, cause)

    def _relay_from(self, store: Store, connection: Connection) -> None:
        """Monitor the component that the connection went on to."""
        target, former = store.get(DOWNSTREAM), store.get(self._went_to)
        if former is not None and former.is_live and former.target == target:
            return
        if former is not None:
            former.end()
            store.pop(self._went_to)
        if self._monitors is not None and target is not None:
            store.pop(UNHEARD)
            store.put(self._went_to, self._monitors.listen(target, connection, _Relay(self, store, target)))

    def lost(self, store: Store, target: str, reason: str) -> None:
        """The component that the connection went on to is unresponsive."""
        store.put(UNHEARD, target)
        name = _next_name(self._connections.get(store.connection_id))
        found = f"{name} does not respond: {with_name(name, reason.removesuffix(_TRANSPORTS))}"
        remedy = f"check that {name} runs, and start it again if it does not"
        self._set_down(store.connection_id, Cause(PEER_LOST, found, remedy, self.name))
        close_now(store)

    def relay(self, store: Store, kind: ConnectionEventType, theirs: Connection) -> None:
        """Pass on the report of the component that the connection went on to."""
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
        if theirs.path is not None and changed.path is not None:  # up to here the path is ours
            behind = changed.path.index + 1
            changed.path.path_segments[behind:] = theirs.path.path_segments[behind:]
        if kind == ConnectionEventType.DELETE and not any(map(cause_in, _metrics_behind(changed))):
            closed = f"{_next_name(changed)} has closed the connection and gives no reason"
            _set_cause(changed, Cause(PEER_CLOSED, closed, f"look at the log of {_next_name(changed)}", self.name))
        elif state == State.UP:
            _set_cause(changed, None)
        self._update(changed)


class Reporter(Protocol):
    """Reports states of connections to their listeners."""

    def report(self, connection_id: str, state: State | None, cause: Cause | None = None) -> None:
        """Report a state that stays until the next request of the connection, if that exists, and why.

        None is for the state that it has.
        """
        ...

    def report_repair(self, connection_id: str, fault: str) -> None:
        """Report a repair of the wire, and its end: see `LiveWire.begin_repair`. The state stays as it is."""
        ...


def set_fault(connection: Connection, fault: str) -> None:
    """Put into the current path segment why its component repairs the wire; empty: it does not."""
    _set_cause(connection, Cause(BEING_REPAIRED, fault, is_healing=True) if fault else None)


def fault_in(connection: Connection) -> str:
    """Why a component on the path repairs the wire at the moment; empty: none does."""
    segments = connection.path.path_segments if connection.path is not None else ()
    causes = (cause_in(segment.metrics) for segment in segments)
    return next((cause.sentence for cause in causes if cause is not None and cause.code == BEING_REPAIRED), "")


def say(store: Store, cause: Cause, state: State | None = None) -> None:
    """Report what occurred to an established connection, with a new state or without."""
    if (reporter := store.get(REPORTER)) is not None:
        reporter.report(store.connection_id, state, cause)


def ended_in(connection: Connection) -> str:
    """What of the wire no longer exists, as a component behind this one reports; else an empty text."""
    if connection.path is None:
        return ""
    behind = connection.path.path_segments[connection.path.index :]
    causes = (cause_in(segment.metrics) for segment in behind)
    return next((cause.sentence for cause in causes if cause is not None and cause.code == NAMESPACE_GONE), "")


class _Relay:
    """Monitors the component that one connection went on to."""

    __slots__ = ("_monitor", "_store", "_target")

    def __init__(self, monitor: Monitor, store: Store, target: str) -> None:
        self._monitor, self._store, self._target = monitor, store, target

    def heard(self, kind: ConnectionEventType, theirs: Connection) -> None:
        self._monitor.relay(self._store, kind, theirs)

    def lost(self, reason: str) -> None:
        self._monitor.lost(self._store, self._target, reason)


_Caller = tuple[str, str]
"""The caller: its SPIFFE ID, and the name of its segment in the path."""


def _caller(call: Call, connection: Connection) -> _Caller | None:
    path = connection.path
    if call.peer is None or path is None or not 0 < path.index <= len(path.path_segments):
        return None
    return call.peer.spiffe_id, path.path_segments[path.index - 1].name


def _why(error: BaseException) -> Cause:
    """The cause of a failed request, from the component and the element that it is from."""
    if not isinstance(error, MeshError):
        return Cause("Canceled", "a request for it had no answer in the time that the client gave it")
    cause = cause_of(error)
    return replace(cause, code=PEER_LOST) if cause.element == TRANSPORT else cause


def _set_cause(connection: Connection, cause: Cause | None) -> None:
    """Put a cause into the path segment of its component, if that is behind us, else into ours; or remove ours."""
    own = _segment_of(connection, "")
    if own is not None:
        remove_cause(own.metrics)
    if cause is not None and (segment := _segment_of(connection, cause.component)) is not None:
        remove_cause(segment.metrics)
        is_its_own = segment.name == cause.component
        segment.metrics.update((replace(cause, component="") if is_its_own else cause).metrics())


def _segment_of(connection: Connection, name: str) -> PathSegment | None:
    """The segment behind ours with this name, else ours."""
    path = connection.path
    if path is None or path.index >= len(path.path_segments):
        return None
    own, *behind = path.path_segments[path.index :]
    return next((segment for segment in behind if segment.name == name), own) if name else own


def _note_time(connection: Connection, seconds: float, *, is_new: bool) -> None:
    """Put into our path segment how long we and those behind us took to make the connection.

    Unless it `is_new`, an earlier process may have made it, and noted that.
    """
    if (own := _segment_of(connection, "")) is not None and (is_new or SETUP_MS not in own.metrics):
        own.metrics[SETUP_MS] = f"{seconds * 1000:.1f}"


def _is_news(cause: Cause, connection: Connection, *, is_event: bool) -> bool:
    """Whether the cause in its segment is another one; an event may occur again."""
    segment = _segment_of(connection, cause.component)
    found = cause_in(segment.metrics) if segment is not None else None
    return found is None or found.sentence != cause.sentence or (is_event and cause.at - found.at > _AGAIN)


def _metrics_behind(connection: Connection) -> list[dict[str, str]]:
    path = connection.path
    return [segment.metrics for segment in path.path_segments[path.index + 1 :]] if path is not None else []


def _next_name(connection: Connection | None) -> str:
    """The component behind this one."""
    path = connection.path if connection is not None else None
    behind = path.path_segments[path.index + 1 :] if path is not None else []
    return behind[0].name if behind else "the next component"


def _says_nothing_new(known: Connection, theirs: Connection, state: State) -> bool:
    """Whether an event only repeats the answer to our own call, as nearly all do: those need no further work."""
    if state != known.state or theirs.context != known.context:
        return False
    if theirs.path is None or known.path is None:
        return True
    behind = known.path.index + 1
    return theirs.path.path_segments[behind:] == known.path.path_segments[behind:]


def _can_be(connection: Connection, limits: Limits) -> bool:
    """Whether a peer's report of a connection is valid: it is passed on to the listeners here."""
    try:
        check_connection(connection, limits)
    except InvalidRequest as error:
        log.info("a peer reports an invalid connection", reason=str(error))
        return False
    return True


def _subjects(connection: Connection) -> list[str]:
    """The subject of each segment's token; an empty text for an invalid token."""
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
    """A copy, if something has to be left out."""
    if connection.mechanism is None or INODE_URL not in connection.mechanism.parameters:
        return connection
    copy = codec.clone(connection)
    assert copy.mechanism is not None
    del copy.mechanism.parameters[INODE_URL]
    return copy


Show = Callable[[Connection], Connection]
Sight = Callable[[Connection], Show | None]
"""How much of a connection a listener may see; None: nothing."""


def _check_selector(selector: MonitorScopeSelector) -> None:
    for what, names, most in (
        ("network services", selector.network_services, _MOST_SERVICES),
        ("path segments", selector.path_segments, _MOST_SEGMENTS),
    ):
        if len(names) > most:
            raise InvalidRequest(f"the selector has {len(names)} {what}; at most {most} are allowed")


class _Listener:
    """One monitor's unsent events: the latest of each connection. `calls` lists the calls to leave out."""

    def __init__(self, selector: MonitorScopeSelector, sight: Sight, calls: str = "") -> None:
        _check_selector(selector)
        self._part = MonitorScopeSelector(path_segments=selector.path_segments)
        self._services, self._sight = frozenset(selector.network_services), sight
        self.sees_attempts = False
        self._calls = {(calls, segment.name) for segment in selector.path_segments} if calls else frozenset[_Caller]()
        self._names = {name for _, name in self._calls}
        self._news: dict[str, tuple[ConnectionEventType, Connection, Show]] = {}
        self._wake = asyncio.Event()

    def shown(self, connection: Connection) -> Connection | None:
        """The connection as this listener sees it; None if it does not match, or may not be seen."""
        show = self._show(connection)
        return None if show is None else show(connection)

    def hear(self, kind: ConnectionEventType, connection: Connection) -> None:
        if self._names and not self._is_next_to(connection):
            return
        if (show := self._show(connection)) is not None:
            self._news.pop(connection.id, None)
            self._news[connection.id] = kind, connection, show
            self._wake.set()

    def _is_next_to(self, connection: Connection) -> bool:
        """Whether a selected name is the caller here; in a chain of services, a path has names further away, too."""
        path = connection.path
        if path is None:
            return False
        return any(each.name in self._names for each in path.path_segments[max(0, path.index - 1) : path.index + 1])

    def is_told(self, caller: _Caller) -> bool:
        """Whether the answer to a call of `caller` goes to this listener."""
        return caller in self._calls

    def forget(self, connection: Connection) -> None:
        """Drop a connection's event that was not sent yet: it is out of date."""
        self._news.pop(connection.id, None)

    async def next(self) -> ConnectionEvent:
        """The oldest unsent event; that connection's state by now."""
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
