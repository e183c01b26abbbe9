"""Ends an endpoint that is no longer used: one that was started on demand, by a supplier."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key, Unavailable
from nsm.chains.logs import log


class EndWhenIdle(Element):
    """Call `end` when there has been no connection for `timeout` seconds, and refuse all requests from then on.

    The time begins with `start`, and again with the end of the last connection, or with the failure of a first request.
    Only connections that are a `use` count; None: all do. It is asked once for each of them.
    Raises `Unavailable` afterwards, so that forwarders try another endpoint. Stands first.
    """

    def __init__(
        self, timeout: float, end: Callable[[], None], *, use: Callable[[Call], Awaitable[bool]] | None = None
    ) -> None:
        self._timeout, self._end, self._use = timeout, end, use
        self._connections = 0
        self._timer: asyncio.TimerHandle | None = None
        self._known: Key[bool] = Key("counted as in use")
        self.has_ended = False

    def start(self) -> None:
        """Let the time begin, if there is no connection."""
        if not self._connections and not self.has_ended:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._over)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Count the connection."""
        if self.has_ended:
            raise Unavailable(f"the endpoint has ended: it was not used for {self._timeout:g} s")
        if call.live.get(self._known) is None:
            is_use = call.live.put(self._known, self._use is None or await self._use(call))
            if is_use:
                call.live.on_end(self._left)
                self._connections += 1
                self._stop_timer()
        return await rest.request(call)

    async def aclose(self) -> None:
        """Stop counting."""
        self._stop_timer()

    def _left(self) -> None:
        self._connections -= 1
        self.start()

    def _over(self) -> None:
        log.info("ending: this endpoint is not used", idle_s=self._timeout)
        self.has_ended = True
        self._end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
