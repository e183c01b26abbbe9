"""Tells whoever listens how connections are: the present state, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from nsm.chains.core import Call, Element, Handler, Key, MeshError, Peer, Store
from nsm.chains.model.matching import selects


class RemoteEvents(Protocol):
    """Opens the monitor of the component at a target."""

    def __call__(self, target: str, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Its events for `selector`."""
        ...


DOWNSTREAM: Key[str] = Key("downstream target")
"""Where the client chain behind a server asked for the connection: set by what dials, read by the monitor."""


class Monitor(Element):
    """Serve the events of this component's connections, and relay those from further on.

    A listener gets the connections that its selector means as INITIAL_STATE_TRANSFER, also if there are none, then
    UPDATE and DELETE as they occur; one that reads slowly gets the latest state of each connection. If the
    connection went on to another component, that one is listened to in turn, and what it says of path, context and
    state is passed on as an UPDATE of our own connection; if it cannot be heard any more the state is DOWN.
    """

    def __init__(self, remote: RemoteEvents | None = None) -> None:
        self._remote = remote
        self._connections: dict[str, Connection] = {}
        self._listeners: set[_Listener] = set()
        self._relay: Key[asyncio.Task[None]] = Key("relay of events")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Tell of a success, and of the failure of what was up."""
        relayed = call.live.pop(self._relay)
        if relayed is not None:
            relayed.cancel()
        try:
            connection = await rest.request(call)
        except BaseException:
            if relayed is not None:
                self._set_down(call.live)
            raise
        self._update(connection)
        call.live.on_end(lambda: self._delete(connection.id))
        self._listen_downstream(call.live, connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Tell of the end, also if the Close failed."""
        if (relayed := call.live.pop(self._relay)) is not None:
            relayed.cancel()
        try:
            await rest.close(call)
        finally:
            self._delete(call.connection.id)

    async def monitor(self, selector: MonitorScopeSelector, peer: Peer | None = None) -> AsyncIterator[ConnectionEvent]:
        """The events that `selector` means, without end."""
        del peer  # whoever may connect may listen
        listener = _Listener(selector)
        self._listeners.add(listener)
        try:
            present = {key: codec.clone(c) for key, c in self._connections.items() if selects(selector, c)}
            yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER, connections=present)
            while True:
                for event in await listener.next():
                    yield event
        finally:
            self._listeners.discard(listener)

    def _update(self, connection: Connection) -> None:
        kept = self._connections[connection.id] = codec.clone(connection)
        for listener in self._listeners:
            listener.hear(ConnectionEventType.UPDATE, kept)

    def _delete(self, connection_id: str) -> None:
        connection = self._connections.pop(connection_id, None)
        if connection is not None:
            for listener in self._listeners:
                listener.hear(ConnectionEventType.DELETE, connection)

    def _set_down(self, store: Store) -> None:
        connection = self._connections.get(store.connection_id)
        if connection is not None and connection.state != State.DOWN:
            changed = codec.clone(connection)
            changed.state = State.DOWN
            self._update(changed)

    def _listen_downstream(self, store: Store, connection: Connection) -> None:
        target = store.get(DOWNSTREAM)
        if self._remote is None or target is None:
            return
        work = self._relay_from(store, codec.clone(connection), self._remote, target)
        store.put(self._relay, store.spawn(work, name="relay of events"))

    async def _relay_from(self, store: Store, own: Connection, remote: RemoteEvents, target: str) -> None:
        segment = PathSegment(name=_segment(own).name, id=own.id)
        try:
            async for event in remote(target, MonitorScopeSelector(path_segments=[segment])):
                for connection in event.connections.values():
                    self._relay_event(own, event.type, connection)
        except MeshError:
            pass
        self._set_down(store)

    def _relay_event(self, own: Connection, kind: ConnectionEventType, theirs: Connection) -> None:
        known = self._connections.get(own.id)
        if known is None or not _concerns(own, theirs):
            return
        if kind == ConnectionEventType.INITIAL_STATE_TRANSFER and theirs.state == known.state:
            return
        changed = codec.clone(known)
        changed.context, changed.state = codec.clone(theirs).context, theirs.state
        if theirs.path is not None:
            changed.path = codec.clone(theirs.path)
            changed.path.index = own.path.index if own.path else 0
        if kind == ConnectionEventType.DELETE:
            changed.state = State.DOWN
        if changed != known:
            self._update(changed)


def _segment(connection: Connection) -> PathSegment:
    assert connection.path is not None
    return connection.path.path_segments[connection.path.index]


def _concerns(own: Connection, theirs: Connection) -> bool:
    """Whether an event from further on is about our connection: our segment is in its path, and it is one behind us."""
    if own.path is None or theirs.path is None:
        return False
    index, segments = own.path.index, theirs.path.path_segments
    return len(segments) > index and segments[index].id == own.id and theirs.path.index in (index, index + 1)


class _Listener:
    """What one monitor has not heard yet: the latest of each connection."""

    def __init__(self, selector: MonitorScopeSelector) -> None:
        self._selector = selector
        self._news: dict[str, tuple[ConnectionEventType, Connection]] = {}
        self._wake = asyncio.Event()

    def hear(self, kind: ConnectionEventType, connection: Connection) -> None:
        if selects(self._selector, connection):
            self._news.pop(connection.id, None)
            self._news[connection.id] = kind, connection
            self._wake.set()

    async def next(self) -> list[ConnectionEvent]:
        await self._wake.wait()
        self._wake.clear()
        news, self._news = self._news, {}
        return [ConnectionEvent(type=kind, connections={key: c}) for key, (kind, c) in news.items()]
