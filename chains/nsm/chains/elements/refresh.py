"""A client keeps its connection alive: it asks again in good time before any token of the path expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.connection import Connection
from nsm.chains.core import Backoff, Call, Element, Handler, Key, MeshError, Store
from nsm.chains.logs import log

RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0
"""Seconds to wait after the first refresh that failed, and at most."""

_SOONEST = 0.2
"""Seconds: the tokens of a path may be of the past, where nobody checks them."""


class Refresh(Element):
    """Request anew after a part of the shortest remaining token lifetime of the path.

    The part is a third for a path of one segment, else 0.2 to 0.4: the further a component is from the client, the
    later it asks, so that usually the client's refresh comes first and carries everybody. A refresh that fails is
    tried again, with growing pauses, until it succeeds or the connection is closed.
    """

    def __init__(self) -> None:
        self._timer: Key[None] = Key("refresh")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the clock anew after a success."""
        store = call.live
        connection = await rest.request(call)
        self._schedule(store, max(_SOONEST, refresh_after(connection, time.time())))
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Stop the clock."""
        call.live.unschedule(self._timer)
        await rest.close(call)

    def _schedule(self, store: Store, delay: float, backoff: Backoff | None = None) -> None:
        when = asyncio.get_running_loop().time() + delay
        store.schedule(self._timer, when, lambda: self._refresh(store, backoff or Backoff(RETRY_INTERVAL, RETRY_LIMIT)))

    async def _refresh(self, store: Store, backoff: Backoff) -> None:
        try:
            await store.events.request()
        except MeshError as error:
            pause = backoff.next()
            log.warning("refresh failed", connection=store.connection_id, error=str(error), again_in_s=pause)
            self._schedule(store, pause, backoff)


def refresh_after(connection: Connection, now: float) -> float:
    """Seconds from `now` (since the epoch) until the connection is to be refreshed; infinity if no segment expires."""
    path = connection.path
    segments = path.path_segments if path is not None else []
    remaining = min((s.expires.to_seconds() - now for s in segments if s.expires is not None), default=float("inf"))
    scale = 1 / 3 if path is None or len(segments) <= 1 else 0.2 + 0.2 * path.index / len(segments)
    return max(0.0, remaining * scale)
