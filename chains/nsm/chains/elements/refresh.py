"""Keeps a client's connection alive: it requests again in good time before any token of the path expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Backoff, Call, Element, Handler, Key, MeshError, NotFound, Store, reselect_everything
from nsm.chains.logs import log

from .liveness import Liveness

RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0
"""Seconds to wait after the first failed refresh, and at most."""
GRACE = 6.0
"""Seconds for which the endpoint, or the forwarder, has to be unknown: after a restart of the registry all components
register again within that time (`nsm.chains.registry.heal`)."""

HEALING: Key[bool] = Key("being healed")
"""Set while healing repeats the request."""
_OF_A_SERVICE = "network service '"
"""How the error about a missing service begins: its endpoint may exist, and the wire with it."""

_SOONEST = 0.2
"""The shortest interval in seconds: the tokens of a path may be in the past if no component checks them."""


class Refresh(Element):
    """Request again after a part of the shortest remaining token lifetime of the path.

    The part is a third for a path of one segment, else 0.2 to 0.4: the further a component is from the client, the
    later it requests, so that usually the client's refresh is first and refreshes all components. A failed refresh is
    tried again, with growing pauses, until it succeeds or the connection is closed.

    If for `GRACE` seconds the answer is that the connection's endpoint or forwarder does not exist, it may be back
    under another name: the mesh chooses again, unless packets pass, as far as `liveness` can check that.
    """

    def __init__(self, liveness: Liveness | None = None) -> None:
        self._liveness = liveness
        self._connection: Key[Connection] = Key("last answer")
        self._timer: Key[None] = Key("refresh")
        self._told: Key[str] = Key("why the last refresh failed")
        self._gone: Key[float] = Key("not found since")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Restart the timer after a success."""
        store = call.live
        connection = await rest.request(call)
        store.pop(self._gone)
        store.put(self._connection, connection)
        if store.pop(self._told) is not None:
            log.info("refreshed again", connection=store.connection_id)
        self._schedule(store, max(_SOONEST, refresh_after(connection, time.time())))
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Stop the timer."""
        call.live.unschedule(self._timer)
        await rest.close(call)

    def _schedule(self, store: Store, delay: float, backoff: Backoff | None = None) -> None:
        when = asyncio.get_running_loop().time() + delay
        store.schedule(self._timer, when, lambda: self._refresh(store, backoff or Backoff(RETRY_INTERVAL, RETRY_LIMIT)))

    async def _refresh(self, store: Store, backoff: Backoff) -> None:
        if store.get(HEALING):
            self._schedule(store, backoff.next(), backoff)
            return
        try:
            await self._request(store)
        except MeshError as error:
            pause, text = backoff.next(), str(error)
            tell = log.debug if store.get(self._told) == text else log.warning  # a cause is logged once
            tell("refresh failed", connection=store.connection_id, error=text, again_in_s=pause)
            store.put(self._told, text)
            self._schedule(store, pause, backoff)

    async def _request(self, store: Store) -> None:
        """Repeat the last request; reselect if its endpoint or forwarder has been missing for too long."""
        now = asyncio.get_running_loop().time()
        try:
            await store.events.request()
        except NotFound as error:
            if not means_gone(error) or now - store.setdefault(self._gone, lambda: now) < GRACE:
                raise
            if await self._passes(store.get(self._connection)):
                raise
            log.warning(
                "endpoint or forwarder not found: asking the mesh to choose again",
                connection=store.connection_id,
                error=str(error),
            )
            await store.events.request(reselect=choose_anew)

    async def _passes(self, connection: Connection | None) -> bool:
        """Whether packets are known to pass; False where that cannot be checked."""
        if self._liveness is None or connection is None:
            return False
        return await self._liveness.is_alive(connection) is True


def means_gone(error: MeshError) -> bool:
    """Whether the answer to a refresh means that the endpoint or the forwarder of the connection does not exist."""
    return isinstance(error, NotFound) and not error.detail.startswith(_OF_A_SERVICE)


def choose_anew(request: NetworkServiceRequest) -> None:
    """Choose mechanism and endpoint again, and leave out the DNS servers of the endpoint that is gone."""
    reselect_everything(request)
    if request.connection is not None and request.connection.context is not None:
        request.connection.context.dns_context = None


def refresh_after(connection: Connection, now: float) -> float:
    """Seconds from `now` (since the epoch) until the connection has to be refreshed; infinity if no segment expires."""
    path = connection.path
    segments = path.path_segments if path is not None else []
    remaining = min((s.expires.to_seconds() - now for s in segments if s.expires is not None), default=float("inf"))
    scale = 1 / 3 if path is None or len(segments) <= 1 else 0.2 + 0.2 * path.index / len(segments)
    return max(0.0, remaining * scale)
