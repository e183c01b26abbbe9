"""A client that repeats a Request until it succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import DEFAULT_TIMEOUT, Backoff, Call, Element, Handler, MeshError

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds to wait after the first attempt that failed, and at most."""

Failed = Callable[[Connection, MeshError, float], None]
"""Receives failed attempts: the request, the reason, and the seconds until the next attempt."""


def _nobody(_connection: Connection, _error: MeshError, _pause: float) -> None: ...


class Retry(Element):
    """Repeat a Request, each time unchanged, until it succeeds or its caller gives up.

    It stands first: each attempt is a call of its own, which may take `timeout` seconds. `tell` receives each failure.
    """

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT, tell: Failed = _nobody) -> None:
        self._timeout, self._tell = timeout, tell

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Request, with growing pauses after failures."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                return await rest.request(attempt_of(call, self._timeout))
            except MeshError as error:
                pause = backoff.next()
                self._tell(call.connection, error, pause)
            await asyncio.sleep(pause)


def attempt_of(call: Call, timeout: float) -> Call:
    """A call of its own for the same request, with `timeout` seconds from now."""
    deadline = asyncio.get_running_loop().time() + timeout
    return Call(codec.clone(call.request), deadline=deadline, target=call.target)
