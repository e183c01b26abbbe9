"""The first element of a connection: serialises its events and owns its state.

Contract:

*Scope.* A `Begin` keeps one entry for each connection id it has seen succeed or is trying to establish. The first
`Begin` that a call meets owns the connection; those behind it (a client chain that continues a server chain) pass
the call on and share the store.

*Exclusivity and order.* At most one event of a connection runs behind `Begin` at a time; waiting events run in the
order in which they arrived (see `turns`). Events are Requests and Closes of callers, and those that the mesh itself
starts through the `EventFactory` (refresh, heal, expiry). Different connections do not wait for each other.

*Close correctness.* A Close always runs with the connection that the last successful Request returned, whatever the
caller passes; only the path up to here is the caller's, and it is judged by that. A Close of an unknown connection
(this process may have started since) runs with what the caller passes, and an empty store: ``call.is_unknown``. Its
caller is judged like any other, each element cleans up whatever it finds of that id, and the components that the
path names are notified, unless the connection was closed here a moment ago, when they were. After a Close the store is
disposed of, even if the Close failed behind `Begin`: elements clean up locally in any case. Only a Close that its
caller was not entitled to (`CloseRefused`) changes nothing.

*Failure and cancellation.* The steps that a failed or cancelled call has registered with `call.undo` are undone,
shielded, before the next event may begin. If the connection had not been established before, its store is disposed
of and nothing of it is left. An established connection stays unchanged.

An answer that did not reach its caller counts as a failed request: ``call.not_delivered`` closes a connection that it
established. It never closes a connection that existed before, according to its caller (`Stood`).

*Reselection.* A Request whose connection has the state RESELECT_REQUESTED first closes the established connection, on
behalf of its caller, then starts afresh. An error of that Close does not stop it, except `CloseRefused`. When the
mesh itself reselects, the store lives on (the task that requested it is in there), so an element's `close` removes
its own entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, State
from nsm.apis.connectioncontext import ConnectionContext
from nsm.chains.errors import CloseRefused, InvalidRequest

from .call import DEFAULT_TIMEOUT, Call
from .chain import Element, Handler
from .events import Reselect
from .store import Store
from .tasks import log_event, shielded
from .turns import Entries, Entry

Merge = Callable[[Connection, Connection, Connection], Connection]
"""How a client's new request changes an established connection.

``merge(returned, requested, current)`` gives the connection to send, from the last answer to the caller, its request
now, and the current connection (events of the mesh itself may have changed it since). It may change `current`.
"""


_CLOSED, _MOST_CLOSED = 60.0, 256
"""Seconds for which a connection that was closed is remembered, and how many are."""


class Begin(Element):
    """Serialises the events of each connection, owns their stores; see the module's contract."""

    def __init__(self, *, merge: Merge | None = None, is_last: bool = False) -> None:
        """With `is_last` no component is behind this one, so a Close of an unknown connection has nothing to do."""
        self._merge, self._is_last = merge, is_last
        self._entries: Entries[_Entry] = Entries("begin")
        self._closed: dict[str, float] = {}
        """When connections were closed here and behind, the latest one last."""

    def __len__(self) -> int:
        """The number of connections."""
        return len(self._entries)

    def __contains__(self, connection_id: object) -> bool:
        """Whether there is such a connection, or a request for it."""
        return connection_id in self._entries

    def stores(self) -> list[Store]:
        """The stores of all connections, which a leak test counts."""
        return [entry.store for entry in self._entries.all()]

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Run a Request when it is its turn."""
        if call.store is not None:
            return await rest.request(call)
        async with self._turn(call, rest) as entry:
            self._closed.pop(entry.key, None)
            if self._merge is not None and entry.wanted is not None and entry.returned is not None:
                current = codec.clone(entry.wanted.connection)
                call.connection = self._merge(entry.returned, call.connection, current)
            returned = await entry.request(call)
            if self._merge is not None:
                entry.returned = codec.clone(returned)
            return returned

    async def close(self, call: Call, rest: Handler) -> None:
        """Run a Close when it is its turn, with the connection that was last returned."""
        if call.store is not None:
            await rest.close(call)
            return
        if _id_of(call) not in self._entries and (self._is_last or self._was_closed(call.connection.id)):
            return
        async with self._turn(call, rest) as entry:
            await entry.close(call)

    async def close_all(self) -> list[BaseException]:
        """Close every connection, all at once; returns the errors."""
        events = [entry.store.events.close() for entry in self._entries.all()]
        results = await asyncio.gather(*events, return_exceptions=True)
        return [result for result in results if isinstance(result, BaseException)]

    async def aclose(self) -> None:
        """End all stores without closing the connections: wires outlive the process that made them."""
        await self._entries.aclose()

    def _remember(self, connection_id: str) -> None:
        """It is closed; those that time out where a path passes are closed by several at once."""
        self._closed.pop(connection_id, None)
        self._closed[connection_id] = asyncio.get_running_loop().time()
        while len(self._closed) > _MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def _was_closed(self, connection_id: str) -> bool:
        """Whether it was closed a moment ago, so that the components behind need no second Close."""
        when = self._closed.get(connection_id)
        return when is not None and asyncio.get_running_loop().time() < when + _CLOSED

    def _turn(self, call: Call, rest: Handler) -> AbstractAsyncContextManager[_Entry]:
        connection_id = _id_of(call)
        return self._entries.turn(connection_id, lambda: _Entry(self._entries, connection_id, rest, self._remember))


class _Entry(Entry):
    """One connection: its turn, its store, and the call that established it."""

    def __init__(
        self, entries: Entries[_Entry], connection_id: str, rest: Handler, closed: Callable[[str], None]
    ) -> None:
        super().__init__(entries, connection_id)
        self.rest, self._closed = rest, closed
        self.wanted: Call | None = None
        self.returned: Connection | None = None
        self._timeout = DEFAULT_TIMEOUT

    @property
    def stands(self) -> bool:
        return self.wanted is not None

    async def request(self, call: Call) -> Connection:
        """A caller's Request."""
        if self.wanted is not None and call.connection.state == State.RESELECT_REQUESTED:
            await self._close_to_reselect(call)
            await self.forget()
        timeout = call.remaining()
        connection = await self._attempt(call)
        self._timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        return connection

    async def repeat(self, reselect: Reselect | None) -> None:
        """The mesh's own Request; if it fails the connection stays requested, so that it may be tried again."""
        if self.wanted is None:
            return
        call = self._same_call()
        if reselect is not None:
            await self._close_to_reselect()
            reselect(call.request)
        await self._attempt(call)

    async def close(self, call: Call) -> None:
        """A caller's Close."""
        if self.wanted is None:
            call.store, call.is_unknown = self.store, True
            await shielded(self._close_unknown(call), name=f"close of {self.key}, which is not known here")
        else:
            await shielded(self._close(self._closing(call)), name=f"close of {self.key}")

    async def end(self) -> None:
        """The mesh's own Close."""
        if self.wanted is not None:
            await shielded(self._close(self._closing(None)), name=f"close of {self.key}")

    async def forget(self) -> None:
        """Nothing is established any longer."""
        self.wanted = self.returned = None
        await super().forget()

    async def _attempt(self, call: Call) -> Connection:
        call.store, is_new = self.store, self.wanted is None and not call.stood_behind()
        call.standing = self.wanted.request if self.wanted is not None else None
        try:
            async with call.undo.attempt():
                connection = await self.rest.request(call)
        except BaseException:
            if self.wanted is None:
                await shielded(self.forget(), name=f"end of {self.key}")
            raise
        call.undo.forget()
        connection.state = State.UP
        request = codec.clone(replace(call.request, connection=None))
        request.connection = codec.clone(connection)
        self.wanted = wanted = Call(request, target=call.target)
        if is_new:
            call.not_delivered = partial(self._take_back, wanted)
        return connection

    def _take_back(self, wanted: Call) -> None:
        """Close what `wanted` established and no client knows, unless it was requested again meanwhile."""

        async def close_it() -> None:
            if self.wanted is wanted:
                log_event("the caller left before it received the answer: closing its connection", connection=self.key)
                await self.end()

        self.start_event(close_it)

    async def _close(self, call: Call) -> None:
        try:
            await self.rest.close(call)
        except CloseRefused:
            raise
        except BaseException:
            await self.forget()
            raise
        await self.forget()
        self._closed(self.key)

    async def _close_unknown(self, call: Call) -> None:
        try:
            await self.rest.close(call)
            self._closed(self.key)
        finally:
            await self.forget()

    def _closing(self, call: Call | None) -> Call:
        """The Close of the connection; with the identity and the deadline of `call`, if a caller closes it."""
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
            await shielded(self.rest.close(closing), name=f"close of {self.key} to reselect")
        except CloseRefused:
            raise
        except Exception as error:
            log_event("close before reselection failed", connection=self.key, error=str(error))

    def _same_call(self) -> Call:
        """A new call like the one that established the connection, with the same time limit."""
        assert self.wanted is not None
        deadline = asyncio.get_running_loop().time() + self._timeout
        return Call(codec.clone(self.wanted.request), deadline=deadline, target=self.wanted.target, store=self.store)


def merge_with_returned(returned: Connection, requested: Connection, current: Connection) -> Connection:
    """A client's merge: what the caller changed since the last answer, on top of the current connection.

    The endpoint's name and the context are taken from the caller if they differ from the last answer (no context is an
    empty one); everything else stays as the mesh chose it. Of the extra context the caller may change or drop only the
    keys that it received.
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
    """The caller's path up to this component, which it is judged by, and behind that the last answer's."""
    if theirs is None or ours is None:
        return ours
    before, behind = theirs.path_segments[: theirs.index + 1], ours.path_segments[ours.index + 1 :]
    return Path(index=theirs.index, path_segments=[*before, *behind])


def _id_of(call: Call) -> str:
    if not call.connection.id:
        raise InvalidRequest("the connection has no id")
    return call.connection.id
