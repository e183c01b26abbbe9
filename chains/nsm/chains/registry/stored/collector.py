"""Deletes the entries of expired records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform

from nsm.chains.core import MeshError, R, Tasks
from nsm.chains.logs import log

from .backend import Changed, Entry, Key, Missing

_SPREAD = 2.0
"""Replicas delete after a random delay of up to so many seconds, so that usually only one of them does."""
_AGAIN = 10.0
"""Seconds until a failed deletion is retried."""
_AT_ONCE = 8
"""Concurrent deletions."""


class Collector:
    """Deletes expired entries of one exact version, so that renewed records stay; safe with several replicas."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def collect(
        self,
        over: Entry[R],
        at: Callable[[Key], Entry[R] | None],
        delete: Callable[[Entry[R]], Awaitable[None]],
    ) -> None:
        """Delete `over` soon, unless `at` returns another entry by then."""
        self._tasks.spawn(self._collect(over, at, delete), name=f"collect {over.key}")

    async def _collect(
        self,
        over: Entry[R],
        at: Callable[[Key], Entry[R] | None],
        delete: Callable[[Entry[R]], Awaitable[None]],
    ) -> None:
        await asyncio.sleep(uniform(0, _SPREAD))  # noqa: S311 - no secret
        while at(over.key) is over:
            try:
                async with self._slots:
                    await delete(over)
                return
            except (Changed, Missing):  # it was renewed, or another replica was first
                return
            except MeshError as error:
                log.warning("cannot delete an expired record", record=over.place, error=str(error))
            await asyncio.sleep(_AGAIN)
