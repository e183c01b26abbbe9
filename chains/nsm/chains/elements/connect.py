"""Continues a server's chain with a client chain: this is how a component passes a request on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial

from nsm.apis import codec
from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import TRANSPORT, Call, Element, Handler, Key, Store, Unavailable, was_not_reached
from nsm.chains.logs import log

from .monitor import DOWNSTREAM

KEEP_BEHIND: Key[Callable[[], Awaitable[float]]] = Key("request to keep a connection")
"""Asks the components behind to keep the connection; raises `MeshError` if they do not answer. `Connect` sets it."""
FIND_AGAIN: Key[Callable[[], Awaitable[str]]] = Key("where the next component is now")
"""Looks the next component of a connection up again; raises `MeshError` if it is not found. `Discover` sets it."""
_SOONEST, _KEEP_TIMEOUT = 1.0, 5.0
"""Seconds: the least pause before the components behind are asked again, and the time that they may take."""
_NOT_REACHED = re.compile(r"(cannot reach \S+): ")


class Connect(Element):
    """Request from `client` first and let the rest of the server's chain process the answer.

    The client chain has a call of its own (`Call.onward`). If the rest of the server's chain, or any element before
    this one, then fails, the connection that `client` made is closed again; not if it existed there before, for a
    component that was restarted since. A Close of an unknown connection is passed on if its path names a component
    behind this one.

    While the caller is away, `KEEP_BEHIND` asks the components behind to keep the connection: it repeats the request.
    """

    def __init__(self, client: Handler) -> None:
        self._client = client
        self._open: Key[bool] = Key("connected")
        self._last: Key[tuple[Connection, int]] = Key("last answer, and our place in its path")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Request from the client chain, then from the rest."""
        call.continued, stood = True, call.stood_behind()
        connection = await self._ask(call.onward())
        if call.live.get(self._open) is None and not stood.goes_on(connection):
            call.undo.add(lambda: self._close_again(call, connection))
        call.live.put(self._open, True)
        call.live.put(self._last, (connection, connection.path.index if connection.path is not None else 0))
        call.live.setdefault(KEEP_BEHIND, lambda: partial(self._keep_behind, call.live))
        call.connection = connection
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Close both; raises the client chain's error if the rest of the server's chain succeeds."""
        try:
            if call.live.pop(self._open) or (call.is_unknown and call.stood_behind()):
                await self._tell(call.onward())
        finally:
            await rest.close(call)

    async def _ask(self, onward: Call) -> Connection:
        try:
            return await self._client.request(onward)
        except Unavailable as error:
            _keep_the_reason(error)
            raise

    async def _tell(self, onward: Call) -> None:
        try:
            await self._client.close(onward)
        except Unavailable as error:
            _keep_the_reason(error)
            raise

    async def _keep_behind(self, store: Store) -> float:
        """Request the last answer again from the components behind; returns the seconds until that is due again."""
        remaining = [0.0]

        async def ask() -> None:
            last = store.get(self._last)
            assert last is not None
            kept, index = codec.clone(last[0]), last[1]
            kept.id, kept.state = store.connection_id, State.UP
            if kept.path is not None:
                kept.path.index = index
            try:
                answer = await self._repeat(store, kept, store.get(DOWNSTREAM))
            except Unavailable as error:
                find = store.get(FIND_AGAIN)
                if find is None or not was_not_reached(error):
                    raise
                answer = await self._repeat(store, kept, await find())  # it was restarted
            ends = [each.expires for each in answer.path.path_segments[index:]] if answer.path is not None else []
            remaining[:] = [each.to_seconds() - time.time() for each in ends if each is not None]

        await store.events.run(ask)
        return max(_SOONEST, min(remaining, default=0.0) / 3)

    async def _repeat(self, store: Store, kept: Connection, target: str | None) -> Connection:
        deadline = asyncio.get_running_loop().time() + _KEEP_TIMEOUT
        call = Call(NetworkServiceRequest(connection=codec.clone(kept)), deadline=deadline, target=target)
        call.store, call.keeps_orphan = store, True
        async with call.undo.attempt():
            return await self._client.request(call)

    async def _close_again(self, call: Call, connection: Connection) -> None:
        call.live.pop(self._open)
        closing = call.postponed()
        closing.connection = codec.clone(connection)
        await self._client.close(closing)


def _keep_the_reason(error: Unavailable) -> None:
    """Remove from errors why a component could not be reached: callers could otherwise probe for listening ports."""
    reached = _NOT_REACHED.match(error.detail)
    if reached is not None and error.element == TRANSPORT and not error.hops:
        log.info("a peer cannot be reached", reason=error.detail)
        error.detail = reached[1]
