"""Deletes the objects of records whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform

from nsm.chains.core import MeshError, Tasks
from nsm.chains.logs import log
from nsm.kube import Key, Object, ObjectConflict, ObjectMissing, key_of

_SPREAD = 2.0
"""Replicas delete at a random moment within so many seconds: one of them does, the others hear of it."""
_AGAIN = 10.0
"""Seconds until a deletion is tried again that failed."""
_AT_ONCE = 8
"""Deletions at the same time."""


class Collector:
    """One of several replicas deletes what has ended, in that very version: what was registered anew stays."""

    def __init__(self, tasks: Tasks, remove: Callable[[Object], Awaitable[None]]) -> None:
        self._tasks, self._remove = tasks, remove
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def collect(self, over: Object, at: Callable[[Key], Object | None]) -> None:
        """Delete `over` soon, unless `at` says by then that it is no more what is there."""
        self._tasks.spawn(self._collect(over, at), name=f"collect {key_of(over)[1]}")

    async def _collect(self, over: Object, at: Callable[[Key], Object | None]) -> None:
        await asyncio.sleep(uniform(0, _SPREAD))  # noqa: S311 - no secret
        while at(key_of(over)) is over:
            try:
                async with self._slots:
                    await self._remove(over)
                return
            except (ObjectConflict, ObjectMissing):  # it came again, or another replica was first
                return
            except MeshError as error:
                log.warning("cannot delete what has ended", name=key_of(over)[1], error=str(error))
            await asyncio.sleep(_AGAIN)
