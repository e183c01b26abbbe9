"""Answers Find from a watch on the registry; asks the registry itself for what it has not seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from nsm.apis import codec
from nsm.chains.core import Found, Kind, MeshError, R, RegistryCall, RegistryElement, RegistryHandler, Tasks
from nsm.chains.logs import log

from .memory import Records

SETTLING = 0.1
"""Seconds without news after which the present state counts as complete."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class Cache(RegistryElement[R]):
    """Keep every record that the rest of the chain knows, by a watch that begins with the first Find.

    A Find that nothing here matches is passed on, so what was registered elsewhere a moment ago is found. While the
    watch is broken every Find is passed on.
    """

    def __init__(self, kind: Kind[R], target: str | None = None) -> None:
        self._kind, self._target = kind, target
        self._records: Records[R] = Records()
        self._tasks = Tasks(f"cache of {kind.noun}s")
        self._is_complete = False
        self._is_told = False

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """What was registered through here is known here at once."""
        record = await rest.register(call)
        if self._is_complete:
            self._records.put(codec.clone(record))
        return record

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """From here if it is known here; a watch goes to the registry."""
        if not len(self._tasks):
            self._tasks.spawn(self._follow(rest), name="watch")
        if self._is_complete and not call.watch and (known := self._records.matching(call.record)):
            yield [Found(record) for record in known]
            return
        async for batch in rest.find(call):
            yield batch

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """What was taken out through here is gone here at once."""
        self._records.pop(call.record.name)
        await rest.unregister(call)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()

    async def _follow(self, rest: RegistryHandler[R]) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._watch(rest)
            except MeshError as error:
                log.warning("the registry is not watched", of=self._kind.noun, reason=str(error), again_in_s=pause)
                self._is_told = True
            pause = FIRST_PAUSE if self._is_complete else min(2 * pause, LONGEST_PAUSE)
            self._is_complete, self._records = False, Records()
            await asyncio.sleep(pause)

    async def _watch(self, rest: RegistryHandler[R]) -> None:
        call: RegistryCall[R] = RegistryCall(cast(Any, self._kind.record)(), watch=True, target=self._target)
        settled: asyncio.TimerHandle | None = None
        try:
            async with aclosing(cast(Any, rest.find(call))) as batches:
                async for batch in batches:
                    for found in batch:
                        self._learn(found)
                    if not self._is_complete:
                        settled = self._settle_later(settled)
        finally:
            if settled is not None:
                settled.cancel()

    def _learn(self, found: Found[R]) -> None:
        if found.deleted:
            self._records.pop(found.record.name)
        else:
            self._records.put(found.record)

    def _settle_later(self, timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle:
        if timer is not None:
            timer.cancel()
        return asyncio.get_running_loop().call_later(SETTLING, self._settle)

    def _settle(self) -> None:
        self._is_complete = True
        if self._is_told:
            self._is_told = False
            log.info("the registry is watched", of=self._kind.noun)
