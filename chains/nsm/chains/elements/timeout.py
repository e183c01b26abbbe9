"""Ends a connection that is not refreshed."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from nsm.apis.connection import Connection
from nsm.chains.core import (
    Call,
    Element,
    Handler,
    InvalidRequest,
    Key,
    MeshError,
    NotFound,
    Store,
    TimedOut,
    Unavailable,
)
from nsm.chains.logs import log
from nsm.chains.model.causes import EXPIRED, ORPHANED, Cause

from .connect import KEEP_BEHIND
from .monitor import say
from .orphans import Orphans

_LOOK_AT = 0.6
"""Part of the lifetime of the caller's token after which the caller is first looked for, if it has not refreshed."""
_LOOK = 5.0
"""Seconds between two checks for the caller of an orphan."""
_SOON = 1.0
_EXPIRED = "the connection was not refreshed before the token of the component before this one expired"


class Timeout(Element):
    """Close the connection when the caller's token expires; each successful Request restarts the timer.

    The time is the `expires` of the path segment before this component's. Raises `InvalidRequest` if the caller's
    segment has none.

    With `orphans`, a connection whose caller cannot be reached then is kept, and so is one whose caller refreshes in
    time although the components behind this one cannot be reached.
    """

    def __init__(self, orphans: Orphans | None = None) -> None:
        self._timer: Key[None] = Key("expiry")
        self._due: Key[float] = Key("next request behind an orphan")
        self._orphaned: Key[bool] = Key("orphaned")
        self._round: Key[object] = Key("generation of the timer")
        self._orphans = orphans if orphans is not None and orphans.lifetime > 0 else None

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the rest answer, then set the timer."""
        expires, store = _callers_expiry(call.connection), call.live
        index = call.connection.path.index if call.connection.path is not None else 0
        try:
            connection = await rest.request(call)
        except (Unavailable, TimedOut, NotFound):  # not found: registrations of those behind have expired meanwhile
            if self._orphans is not None and call.peer is not None and self._orphans.is_young(store):
                self._start(call, store, expires, index)
            raise
        if call.peer is not None or not store.get(self._orphaned):
            self._start(call, store, expires, index)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Stop the timer; even if the Close fails, since Begin ends the connection in any case."""
        call.live.unschedule(self._timer)
        await rest.close(call)

    def _start(self, call: Call, store: Store, expires: float, index: int) -> None:
        now = asyncio.get_running_loop().time()
        ends = now + expires - time.time()
        this = store.put(self._round, object())
        store.pop(self._due)
        if store.pop(self._orphaned):
            log.info("an orphan is vouched for again", connection=store.connection_id)
        if self._orphans is not None and call.peer is not None and self._orphans.may_outlive(call.peer, index):
            when = now + max(0.0, ends - now) * _LOOK_AT
            store.schedule(self._timer, when, partial(self._look, store, this, ends))
        else:
            store.schedule(self._timer, ends, partial(self._end, store, this))

    async def _look(self, store: Store, this: object, ends: float) -> None:
        """In time before the end: keep the components behind from ending what may become an orphan here."""
        assert self._orphans is not None
        now = asyncio.get_running_loop().time()
        await self._orphans.look_ahead(store)
        if self._orphans.is_callers_away(store):
            await self._keep(store)
        when = now + (ends - now) / 3
        if store.get(self._round) is not this:
            return  # it was vouched for meanwhile
        if when - now < _SOON:
            store.schedule(self._timer, ends, partial(self._end, store, this))
        else:
            store.schedule(self._timer, when, partial(self._look, store, this, ends))

    async def _end(self, store: Store, this: object) -> None:
        """At the end of the caller's token, and then while the caller is waited for."""
        seconds = await self._wait(store)
        if store.get(self._round) is not this:
            return
        if seconds is None:
            if store.get(self._orphaned):
                log.warning("an orphan ends", connection=store.connection_id)
            say(store, Cause(EXPIRED, _EXPIRED, "check that the client runs; if it has ended, all is well", self.name))
            await store.events.close(still=lambda: store.get(self._round) is this)
            return
        if seconds == 0.0 and not store.get(self._orphaned):
            self._tell(store)
        await self._keep(store)  # also while a caller that has returned may vouch again: it may be gone again first
        if store.get(self._round) is this:
            when = asyncio.get_running_loop().time() + min(seconds or _LOOK, _LOOK)
            store.schedule(self._timer, when, partial(self._end, store, this))

    async def _wait(self, store: Store) -> float | None:
        """See `Orphans.wait`."""
        if self._orphans is None:
            return None
        seconds = self._orphans.wait(store)
        if seconds == 0.0 and await self._orphans.is_back(store):
            seconds = None
        elif seconds:
            await self._orphans.look_ahead(store)
        return 0.0 if seconds is None and await self._orphans.is_explained(store) else seconds

    async def _keep(self, store: Store) -> None:
        """Ask the components behind to keep it, if that is due."""
        now, keep = asyncio.get_running_loop().time(), store.get(KEEP_BEHIND)
        if keep is None or now < store.setdefault(self._due, lambda: now):
            return
        try:
            store.put(self._due, now + await keep())
        except MeshError as error:
            log.debug("a component behind an orphan does not answer", connection=store.connection_id, error=str(error))

    def _tell(self, store: Store) -> None:
        assert self._orphans is not None
        store.put(self._orphaned, True)
        previous = self._orphans.previous(store)
        found = f"{previous} cannot be reached: packets go on, and nothing else"
        say(store, Cause(ORPHANED, found, f"start {previous} again, or reconnect its node", self.name))
        log.warning(
            "the previous component of a connection cannot be reached: packets go on, and nothing else",
            connection=store.connection_id,
            previous=previous,
            at_most_s=self._orphans.lifetime,
        )


def _callers_expiry(connection: Connection) -> float:
    """When the caller's token expires (seconds since the epoch)."""
    path = connection.path
    if path is None or not 0 < path.index < len(path.path_segments):
        raise InvalidRequest("the path has no segment of a caller before this component's")
    segment = path.path_segments[path.index - 1]
    if segment.expires is None:
        raise InvalidRequest(f"the path segment of {segment.name!r} does not say when its token expires")
    return segment.expires.to_seconds()
