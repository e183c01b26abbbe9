"""Deletes the entries of records whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform

from nsm.chains.core import MeshError, R, Tasks
from nsm.chains.logs import log

from .backend import Changed, Entry, Key, Missing

_SPREAD = 2.0
"""Replicas delete at a random moment within so many seconds: one of them does, the others see it."""
_AGAIN = 10.0
"""Seconds until a deletion that failed is tried again."""
_AT_ONCE = 8
"""Deletions at the same time."""


class Collector:
    """One of several replicas deletes what has ended, in that very version: what was registered anew stays."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def collect(
        self,
        over: Entry[R],
        at: Callable[[Key], Entry[R] | None],
        delete: Callable[[Entry[R]], Awaitable[None]],
    ) -> None:
        """Delete `over` soon, unless `at` returns something else by then."""
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
            except (Changed, Missing):  # it came again, or another replica was first
                return
            except MeshError as error:
                log.warning("cannot delete what has ended", record=over.place, error=str(error))
            await asyncio.sleep(_AGAIN)
