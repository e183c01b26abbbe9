"""Answers Find from a watch on the registry, and queries the registry for records that it has not seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from nsm.apis import codec
from nsm.chains.core import Found, Kind, Limits, MeshError, R, RegistryCall, RegistryElement, RegistryHandler, Tasks
from nsm.chains.logs import log
from nsm.chains.model.domains import is_elsewhere

from .follow import Follow

_LIMITS = Limits()


class Cache(RegistryElement[R]):
    """Cache all records of the rest of the chain, by a watch that begins with the first Find.

    A Find without a match is passed on, so that records registered elsewhere a moment ago are found. While the watch is
    broken, every Find is passed on, and watches that were served from here end; those that are passed on are served
    from here once the cache is complete again. Records of other domains are not cached: the watch does not report them.
    """

    def __init__(self, kind: Kind[R], target: str | None = None, *, limits: Limits = _LIMITS) -> None:
        self._kind = kind
        self._all: _Told[R] = _Told(kind, target, limits)
        self._tasks = Tasks(f"cache of {kind.noun}s")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Register, and update the cache at once."""
        record = await rest.register(call)
        if self._all.is_complete and not is_elsewhere(record):
            self._all.records.put(codec.clone(record))
        return record

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """From the cache if it has a match; watches too, so that a node needs only one watch at the registry."""
        if not len(self._tasks):
            self._tasks.spawn(self._all.run(rest, self._all.tell), name="watch")
        if is_elsewhere(call.record):
            async for batch in rest.find(call):
                yield batch
            return
        if call.watch:
            async for batch in self._watched(call, rest):
                yield batch
            return
        if self._all.is_complete and (known := self._all.records.matching(call.record)):
            yield [Found(record) for record in known]
            return
        async for batch in rest.find(call):
            yield batch

    async def _watched(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """From the rest of the chain until the cache is complete, and from the cache then."""
        told: dict[str, R] = {}
        if not self._all.is_complete:
            async with aclosing(cast(Any, self._until_complete(rest.find(call)))) as batches:
                async for batch in batches:
                    for found in batch:
                        if found.deleted:
                            told.pop(found.record.name, None)
                        else:
                            told[found.record.name] = found.record
                    yield batch
            if not self._all.is_complete:
                return  # the rest of the chain ended the watch, or the cache broke again: the caller watches again
        records = self._all.records
        for record in records.matching(call.record):
            told.pop(record.name, None)
        if told:
            yield [Found(record, deleted=True) for record in told.values()]
            told.clear()
        async for batch in records.watch(call.record):
            yield batch

    async def _until_complete(self, batches: AsyncIterator[Sequence[Found[R]]]) -> AsyncIterator[Sequence[Found[R]]]:
        """The batches that come before the cache is complete."""
        complete = asyncio.ensure_future(self._all.completed.wait())
        step: asyncio.Future[Sequence[Found[R]]] | None = None
        try:
            while not complete.done():
                step = asyncio.ensure_future(cast(Any, anext(batches)))
                await asyncio.wait({step, complete}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    return
                try:
                    yield step.result()
                except StopAsyncIteration:
                    return
        finally:
            await _cancelled(complete, step)
            await cast(Any, batches).aclose()

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister, and update the cache at once; a record that the registry keeps stays."""
        known = self._all.records.get(call.record.name)
        await rest.unregister(call)
        if known is not None and self._all.records.get(call.record.name) is known:
            self._all.records.pop(call.record.name)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()


async def _cancelled(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel them, and wait for their ends."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


class _Told(Follow[R]):
    """All records of a kind; logs when the watch breaks and when it works again."""

    def __init__(self, kind: Kind[R], target: str | None, limits: Limits) -> None:
        super().__init__(cast(Any, kind.record)(), target, limits=limits)
        self._noun = kind.noun
        self._is_told = False

    def tell(self, error: MeshError, pause: float) -> None:
        log.warning("the watch on the registry failed", of=self._noun, reason=str(error), again_in_s=pause)
        self._is_told = True

    def settle(self) -> None:
        super().settle()
        if self._is_told:
            self._is_told = False
            log.info("the watch on the registry works", of=self._noun)
