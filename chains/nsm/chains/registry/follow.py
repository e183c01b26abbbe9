"""What a registry has of one query, kept by a watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, cast

from nsm.chains.core import Found, Inbox, MeshError, R, RegistryCall, RegistryHandler

from .memory import Records

SETTLING = 0.1
"""Seconds without news after which the present state counts as complete."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class Follow(Generic[R]):
    """The records that `query` means, as a registry tells of them; a watch that breaks is begun again."""

    def __init__(self, query: R, target: str | None = None) -> None:
        self._query, self._target = query, target
        self.records: Records[R] = Records()
        self.is_complete = False
        """Whether `records` are all that there are: neither before the first answer, nor while the watch is broken."""

    async def run(self, registry: RegistryHandler[R], broke: Callable[[MeshError, float], None]) -> None:
        """Watch without end; `broke` hears why a watch ended, and after how many seconds the next one begins."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._watch(registry)
            except MeshError as error:
                broke(error, pause)
            finally:
                was_complete = self.is_complete
                self.clear()
            pause = FIRST_PAUSE if was_complete else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def clear(self) -> None:
        """Forget all: the watch ended."""
        self.is_complete, self.records = False, Records()

    async def learn(self, found: Found[R], inbox: Inbox | None) -> None:
        """Take in one change; `inbox` has the descriptors that came with it."""
        if found.deleted:
            self.records.pop(found.record.name)
        else:
            self.records.put(found.record)

    def settle(self) -> None:
        """All that there is has come."""
        self.is_complete = True

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
