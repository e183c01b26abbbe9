"""Answers Find from a watch on the registry, and queries the registry for records that it has not seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
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
    broken, every Find is passed on, and watches that were served from here end. Records of other domains are not
    cached: the watch does not report them.
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
        if self._all.is_complete and call.watch:
            async for batch in self._all.records.watch(call.record):
                yield batch
            return
        if self._all.is_complete and (known := self._all.records.matching(call.record)):
            yield [Found(record) for record in known]
            return
        async for batch in rest.find(call):
            yield batch

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister, and update the cache at once; a record that the registry keeps stays."""
        known = self._all.records.get(call.record.name)
        await rest.unregister(call)
        if known is not None and self._all.records.get(call.record.name) is known:
            self._all.records.pop(call.record.name)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()


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
