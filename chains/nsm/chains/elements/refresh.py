"""A client keeps its connection alive: it asks again in good time before any token of the path expires."""

from __future__ import annotations

import asyncio
import time

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Backoff, Call, Element, Handler, Key, MeshError, NotFound, Store, reselect_everything
from nsm.chains.logs import log

RETRY_INTERVAL, RETRY_LIMIT = 0.2, 5.0
"""Seconds to wait after the first refresh that failed, and at most."""
GRACE = 6.0
"""Seconds for which the endpoint, or the forwarder, has to be unknown: after a restart of the registry all that is
there registers again within that time (`nsm.chains.registry.heal`)."""

HEALING: Key[bool] = Key("being healed")
"""Set while somebody asks for the connection anew, again and again."""
_OF_A_SERVICE = "network service '"
"""Begins what is said of a service that is not there: its endpoint may be, and the wire with it."""

_SOONEST = 0.2
"""Seconds: the tokens of a path may be of the past, where nobody checks them."""


class Refresh(Element):
    """Request anew after a part of the shortest remaining token lifetime of the path.

    The part is a third for a path of one segment, else 0.2 to 0.4: the further a component is from the client, the
    later it asks, so that usually the client's refresh comes first and carries everybody. A refresh that fails is
    tried again, with growing pauses, until it succeeds or the connection is closed.

    If for `GRACE` seconds the answer is that the connection's endpoint or forwarder is not there, it has gone and may
    be back under another name: the mesh is asked to choose anew.
    """

    def __init__(self) -> None:
        self._timer: Key[None] = Key("refresh")
        self._told: Key[str] = Key("why the last refresh failed")
        self._gone: Key[float] = Key("not found since")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Set the clock anew after a success."""
        store = call.live
        connection = await rest.request(call)
        store.pop(self._gone)
        if store.pop(self._told) is not None:
            log.info("refreshed again", connection=store.connection_id)
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
        if store.get(HEALING):
            self._schedule(store, backoff.next(), backoff)
            return
        try:
            await self._request(store)
        except MeshError as error:
            pause, text = backoff.next(), str(error)
            tell = log.debug if store.get(self._told) == text else log.warning  # a cause is told once
            tell("refresh failed", connection=store.connection_id, error=text, again_in_s=pause)
            store.put(self._told, text)
            self._schedule(store, pause, backoff)

    async def _request(self, store: Store) -> None:
        """Ask for what there was; choose anew if that has not been there for too long."""
        now = asyncio.get_running_loop().time()
        try:
            await store.events.request()
        except NotFound as error:
            if not means_gone(error) or now - store.setdefault(self._gone, lambda: now) < GRACE:
                raise
            log.warning(
                "endpoint or forwarder not found: asking the mesh to choose again",
                connection=store.connection_id,
                error=str(error),
            )
            await store.events.request(reselect=choose_anew)


def means_gone(error: MeshError) -> bool:
    """Whether an answer to a refresh says that the endpoint or the forwarder of the connection is not there."""
    return isinstance(error, NotFound) and not error.detail.startswith(_OF_A_SERVICE)


def choose_anew(request: NetworkServiceRequest) -> None:
    """Choose mechanism and endpoint anew, and leave out whom the endpoint that is gone had asked for names."""
    reselect_everything(request)
    if request.connection is not None and request.connection.context is not None:
        request.connection.context.dns_context = None


def refresh_after(connection: Connection, now: float) -> float:
    """Seconds from `now` (since the epoch) until the connection is to be refreshed; infinity if no segment expires."""
    path = connection.path
    segments = path.path_segments if path is not None else []
    remaining = min((s.expires.to_seconds() - now for s in segments if s.expires is not None), default=float("inf"))
    scale = 1 / 3 if path is None or len(segments) <= 1 else 0.2 + 0.2 * path.index / len(segments)
    return max(0.0, remaining * scale)
