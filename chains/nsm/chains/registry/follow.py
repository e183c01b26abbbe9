"""The records of a registry that match a query, kept up to date by a watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, cast

from nsm.chains.core import Backoff, Exhausted, Found, Inbox, Limits, MeshError, R, RegistryCall, RegistryHandler
from nsm.chains.logs import log
from nsm.chains.model.record_limits import MOST_HOPS, encoded_size, excess

from .memory import Records

SETTLING = 0.3
"""Seconds without changes after which the initial state counts as complete."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
PAUSE_WHEN_FULL = 60.0
_MOST_REMEMBERED = 1_024
"""The number of remembered names of skipped records: each is logged once."""
_LIMITS = Limits()


class Follow(Generic[R]):
    """The records of a registry that match `query`; a broken watch is restarted.

    A record that exceeds `limits` is left out: another implementation's registry may contain one. A registry with more
    records than are kept here is not watched.
    """

    def __init__(self, query: R, target: str | None = None, *, limits: Limits = _LIMITS) -> None:
        self._query, self._target, self._limits = query, target, limits
        self._sizes: dict[str, int] = {}
        self._size = 0
        self._left_out: set[str] = set()
        self.records: Records[R] = Records()
        self.completed = asyncio.Event()
        """Set while `records` is complete: not before the first answer, nor while the watch is broken."""

    @property
    def is_complete(self) -> bool:
        """Whether `records` is complete."""
        return self.completed.is_set()

    async def run(self, registry: RegistryHandler[R], broke: Callable[[MeshError, float], None]) -> None:
        """Watch forever; `broke` is called with the error that ended a watch, and the seconds until the next one."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            reason: MeshError | None = None
            try:
                await self._watch(registry)
            except MeshError as error:
                reason = error
            finally:
                if self.is_complete:
                    backoff.reset()
                self.clear()
            pause = PAUSE_WHEN_FULL if isinstance(reason, _Full) else backoff.next()
            if reason is not None:
                broke(reason, pause)
            await asyncio.sleep(pause)

    def clear(self) -> None:
        """Drop all records: the watch ended."""
        self.records.end("the watch on the registry ended")
        self.completed.clear()
        self.records = Records()
        self._sizes, self._size = {}, 0

    async def learn(self, found: Found[R], inbox: Inbox | None) -> None:
        """Apply one change; `inbox` has the descriptors that arrived with it."""
        if not found.deleted and self._fits(found.record):
            self.records.put(found.record)
        else:
            self._count(found.record.name, 0)
            self.records.pop(found.record.name)

    def _fits(self, record: R) -> bool:
        """Whether it may be kept. Raises `Exhausted` if there are too many."""
        fault = excess(record, self._limits, hops=MOST_HOPS)
        if fault is None:
            self._count(record.name, encoded_size(record))
        elif record.name not in self._left_out and len(self._left_out) < _MOST_REMEMBERED:
            self._left_out.add(record.name)
            log.warning(
                "a record of the registry is too large and is left out", name=record.name[:64], reason=fault.text
            )
        return fault is None

    def _count(self, name: str, size: int) -> None:
        self._size += size - self._sizes.pop(name, 0)
        if size:
            self._sizes[name] = size
        if len(self._sizes) > self._limits.cached_records or self._size > self._limits.cached_bytes:
            raise _Full(
                "the registry has more records than are kept here (NSM_LIMITS=cached_records:..,cached_bytes:..)"
            )

    def settle(self) -> None:
        """Mark the initial state as complete."""
        self.completed.set()

    async def _watch(self, registry: RegistryHandler[R]) -> None:
        call: RegistryCall[R] = RegistryCall(self._query, watch=True, target=self._target)
        settled: asyncio.TimerHandle | None = None
        try:
            async with aclosing(cast(Any, registry.find(call))) as batches:
                async for batch in batches:
                    for found in batch:
                        await self.learn(found, call.inbox)
                    if not self.is_complete:
                        settled = self._settle_later(settled)
        finally:
            if settled is not None:
                settled.cancel()

    def _settle_later(self, timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle:
        if timer is not None:
            timer.cancel()
        return asyncio.get_running_loop().call_later(SETTLING, self.settle)


class _Full(Exhausted):
    """A registry has more records than are kept."""
