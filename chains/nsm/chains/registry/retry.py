"""Retries failed calls for as long as the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from nsm.chains.core import (
    Backoff,
    Found,
    InvalidRequest,
    MeshError,
    R,
    Refused,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    TimedOut,
    Unsupported,
)
from nsm.chains.logs import log

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 1.0
TRY_TIMEOUT = 15.0
"""The timeout of one attempt, in seconds."""
_LAST_TRY = 0.05
"""The least time for a last attempt, in seconds."""
_FINAL = (InvalidRequest, Refused, Unsupported)
"""Errors that a retry cannot fix."""


class RegistryRetry(RegistryElement[R]):
    """Try again after a failure, with growing pauses, each try at most `timeout` seconds, until the deadline."""

    def __init__(self, *, timeout: float = TRY_TIMEOUT) -> None:
        self._timeout = timeout

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Retry until it succeeds."""
        return await self._until(call, rest.register)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Retry until it succeeds."""
        await self._until(call, rest.unregister)

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Retry until the first answer arrives; if the stream breaks later, the caller handles it."""
        failure: MeshError | None = None
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            started = False
            try:
                async for batch in rest.find(call):
                    started = True
                    yield batch
                return
            except _FINAL:
                raise
            except MeshError as error:
                if started:
                    raise
                if (pause := _pause(call, backoff)) is None:
                    raise _telling(error, failure) from None
                failure = error
            await asyncio.sleep(pause)

    async def _until(self, call: RegistryCall[R], work: Callable[[RegistryCall[R]], Awaitable[T]]) -> T:
        loop, path = asyncio.get_running_loop(), call.path.copy()
        end, told = call.deadline, ""
        failure: MeshError | None = None
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            once = loop.time() + self._timeout
            call.deadline = once if end is None else min(once, end)
            try:
                return await work(call)
            except _FINAL:
                raise
            except MeshError as error:
                call.deadline = end
                if (pause := _pause(call, backoff)) is None:
                    raise _telling(error, failure) from None
                failure = error
                if str(error) != told:  # log each reason once, since it may last for hours
                    told = str(error)
                    log.warning("cannot register yet", name=call.record.name, reason=told)
            call.path.index, call.path.tokens = path.index, list(path.tokens)
            await asyncio.sleep(pause)


def _pause(call: RegistryCall[R], backoff: Backoff) -> float | None:
    """Seconds until the next attempt; None if too little time would be left for it."""
    pause, left = backoff.next(), call.remaining()
    if left is None:
        return pause
    return min(pause, left - _LAST_TRY) if left > FIRST_PAUSE else None


def _telling(last: MeshError, before: MeshError | None) -> MeshError:
    """The more informative of the last two errors: the last attempt is often cut short by the deadline."""
    return before if before is not None and isinstance(last, TimedOut) else last
