"""The door of a connection: serialises its events and owns what belongs to it.

Contract:

*Scope.* A `Begin` keeps one entry for each connection id it has seen succeed or is trying to establish. The first
`Begin` that a call meets is the connection's; those behind it (a client chain that continues a server chain) pass
the call on and share the store.

*Exclusivity and order.* At most one event of a connection runs behind `Begin` at a time; waiting events run in the
order in which they came. Events are Requests and Closes of callers, and those that the mesh itself starts through
the `EventFactory` (refresh, heal, expiry). Different connections do not wait for each other.

*Close correctness.* A Close always runs with the connection that the last successful Request returned, whatever the
caller passes; only the path up to here is the caller's, and it is judged by that. Closing what is not there succeeds
and does nothing. After a Close the store is disposed of, also when the Close failed behind `Begin`: elements clean up
locally in any case. Only a Close that its caller was not entitled to (`CloseRefused`) changes nothing.

*Failure and cancellation.* What a failed or cancelled call has registered with `call.undo` is taken back, shielded,
before the next event may begin. If the connection had not been established before, its store is disposed of and
nothing of it is left. A connection that was established stays as it was.

*Reselection.* A Request whose connection says RESELECT_REQUESTED first closes what was established, on behalf of its
caller, then starts afresh; errors of that Close do not stop it, but that its caller was not entitled to it. When the
mesh itself reselects, the store lives on (the task that asked for it is in there), so an element's `close` takes its
own entries out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, State
from nsm.apis.connectioncontext import ConnectionContext

from .call import DEFAULT_TIMEOUT, Call
from .chain import Element, Handler
from .errors import CloseRefused, InvalidRequest
from .events import Reselect
from .store import Store
from .tasks import Tasks, log_event, shielded

Merge = Callable[[Connection, Connection, Connection], Connection]
"""What a client's new request means for a connection that is established.

``merge(returned, requested, current)`` gives the connection to send, from what the caller got last, what it passes
now, and what stands now (events of the mesh itself may have changed it since). It may change `current`.
"""


class Begin(Element):
    """Serialises the events of each connection, owns their stores; see the module's contract."""

    def __init__(self, *, merge: Merge | None = None) -> None:
        self._merge = merge
        self._entries: dict[str, _Entry] = {}
        self._events = Tasks("begin")

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._entries)

    def __contains__(self, connection_id: object) -> bool:
        """Whether there is such a connection, or somebody asks for it."""
        return connection_id in self._entries

    def stores(self) -> list[Store]:
        """The stores of all connections: what a leak test counts."""
        return [entry.store for entry in self._entries.values()]

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Run a Request when it is its turn."""
        if call.store is not None:
            return await rest.request(call)
        async with self._turn(_id_of(call), rest) as entry:
            if self._merge is not None and entry.wanted is not None and entry.returned is not None:
                current = codec.clone(entry.wanted.connection)
                call.connection = self._merge(entry.returned, call.connection, current)
            returned = await entry.request(call)
            entry.returned = codec.clone(returned)
            return returned

    async def close(self, call: Call, rest: Handler) -> None:
        """Run a Close when it is its turn, with the connection as it was last returned."""
        if call.store is not None:
            await rest.close(call)
        elif _id_of(call) in self._entries:
            async with self._turn(_id_of(call), rest) as entry:
                await entry.close(call)

    async def close_all(self) -> list[BaseException]:
        """Close every connection, all at once; returns what went wrong."""
        events = [entry.store.events.close() for entry in self._entries.values()]
        results = await asyncio.gather(*events, return_exceptions=True)
        return [result for result in results if isinstance(result, BaseException)]

    async def aclose(self) -> None:
        """End all stores without closing the connections: wires outlive the process that made them."""
        await self._events.aclose()
        for entry in list(self._entries.values()):
            await entry.store.dispose()
        self._entries.clear()

    def run_event(self, entry: _Entry, event: Callable[[_Entry], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start an event of the mesh itself: a task of Begin's own, since the event may end its starter's store."""
        return self._events.start(self._in_turn(entry, event), name=f"event of {entry.connection_id}")

    async def _in_turn(self, entry: _Entry, event: Callable[[_Entry], Coroutine[Any, Any, None]]) -> None:
        if self._entries.get(entry.connection_id) is not entry:
            return
        async with self._turn(entry.connection_id, entry.rest):
            await event(entry)

    @asynccontextmanager
    async def _turn(self, connection_id: str, rest: Handler) -> AsyncIterator[_Entry]:
        entry = self._entries.get(connection_id)
        if entry is None:
            entry = self._entries[connection_id] = _Entry(self, connection_id, rest)
        entry.waiting += 1
        try:
            async with entry.lock:
                yield entry
        finally:
            entry.waiting -= 1
            if entry.wanted is None and not entry.waiting:
                self._entries.pop(connection_id, None)


class _Entry:
    """One connection: its turn, its store, and the call that established it."""

    def __init__(self, begin: Begin, connection_id: str, rest: Handler) -> None:
        self.begin, self.connection_id, self.rest = begin, connection_id, rest
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.store = Store(connection_id, _Events(self))
        self.wanted: Call | None = None
        self.returned: Connection | None = None
        self._timeout = DEFAULT_TIMEOUT

    async def request(self, call: Call) -> Connection:
        """A caller's Request."""
        if self.wanted is not None and call.connection.state == State.RESELECT_REQUESTED:
            await self._close_to_reselect(call)
            await self._forget()
        timeout = call.remaining()
        connection = await self._attempt(call)
        self._timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        return connection

    async def request_again(self, reselect: Reselect | None) -> None:
        """The mesh's own Request; if it fails the connection stays wanted, so that it may be tried again."""
        if self.wanted is None:
            return
        call = self._same_call()
        if reselect is not None:
            await self._close_to_reselect()
            reselect(call.request)
        await self._attempt(call)

    async def close(self, call: Call | None = None) -> None:
        """End the connection; with the identity and the deadline of `call`, if a caller asks for it."""
        if self.wanted is None:
            return
        closing = self._closing(call)
        await shielded(self._close(closing), name=f"close of {self.connection_id}")

    async def _attempt(self, call: Call) -> Connection:
        call.store = self.store
        try:
            async with call.undo.attempt():
                connection = await self.rest.request(call)
        except BaseException:
            if self.wanted is None:
                await shielded(self._forget(), name=f"end of {self.connection_id}")
            raise
        connection.state = State.UP
        request = replace(codec.clone(call.request), connection=codec.clone(connection))
        self.wanted = Call(request, target=call.target)
        return connection

    async def _close(self, call: Call) -> None:
        try:
            await self.rest.close(call)
        except CloseRefused:
            raise
        except BaseException:
            await self._forget()
            raise
        await self._forget()

    def _closing(self, call: Call | None) -> Call:
        """What ends the connection; with the identity and the deadline of `call`, if a caller asks for it."""
        closing = self._same_call()
        if call is not None:
            closing.peer, closing.token, closing.inbox = call.peer, call.token, call.inbox
            if call.peer is not None:
                closing.connection.path = _path_of_caller(call.connection.path, closing.connection.path)
            closing.deadline = closing.deadline if call.deadline is None else call.deadline
        return closing

    async def _close_to_reselect(self, call: Call | None = None) -> None:
        closing = self._closing(call)
        try:
            await shielded(self.rest.close(closing), name=f"close of {self.connection_id} to reselect")
        except CloseRefused:
            raise
        except Exception as error:
            log_event("close before reselection failed", connection=self.connection_id, error=str(error))

    async def _forget(self) -> None:
        self.wanted = self.returned = None
        ended, self.store = self.store, Store(self.connection_id, _Events(self))
        await ended.dispose()

    def _same_call(self) -> Call:
        """A new call like the one that established the connection, with as much time as that one had."""
        assert self.wanted is not None
        deadline = asyncio.get_running_loop().time() + self._timeout
        return Call(codec.clone(self.wanted.request), deadline=deadline, target=self.wanted.target, store=self.store)


class _Events:
    """The `EventFactory` of one entry. Whoever awaits an event may be cancelled by it; the event runs on."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry

    async def request(self, *, reselect: Reselect | None = None) -> None:
        entry = self._entry
        await asyncio.shield(entry.begin.run_event(entry, lambda entry: entry.request_again(reselect)))

    async def close(self) -> None:
        entry = self._entry
        await asyncio.shield(entry.begin.run_event(entry, lambda entry: entry.close()))

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        entry = self._entry

        async def in_turn(entry: _Entry) -> None:
            if entry.wanted is not None:
                await work()

        await asyncio.shield(entry.begin.run_event(entry, in_turn))


def merge_with_returned(returned: Connection, requested: Connection, current: Connection) -> Connection:
    """A client's merge: what the caller changed since the last answer, on top of how the connection stands now.

    The endpoint's name and the context are taken from the caller if they differ from what it got (no context is an
    empty one); everything else stays as the mesh chose it. Of the extra context only the keys that the caller got
    are its to change or to drop.
    """
    if requested.network_service_endpoint_name != returned.network_service_endpoint_name:
        current.network_service_endpoint_name = requested.network_service_endpoint_name
    if requested.context != returned.context:
        wanted = codec.clone(requested.context) if requested.context is not None else ConnectionContext()
        if current.context is not None:
            before = returned.context.extra_context if returned.context is not None else {}
            wanted.extra_context = _merge_keys(before, wanted.extra_context, current.context.extra_context)
        current.context = wanted
    if requested.state == State.RESELECT_REQUESTED:
        current.state = State.RESELECT_REQUESTED
    return current


def _merge_keys(before: dict[str, str], requested: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    merged = {key: value for key, value in now.items() if key not in before or key in requested}
    return merged | {key: value for key, value in requested.items() if key in before and before[key] != value}


def _path_of_caller(theirs: Path | None, ours: Path | None) -> Path | None:
    """The path as the caller shows it, up to this component: what it is judged by; behind that, what was returned."""
    if theirs is None or ours is None:
        return ours
    before, behind = theirs.path_segments[: theirs.index + 1], ours.path_segments[ours.index + 1 :]
    return Path(index=theirs.index, path_segments=[*before, *behind])


def _id_of(call: Call) -> str:
    if not call.connection.id:
        raise InvalidRequest("the connection has no id")
    return call.connection.id
