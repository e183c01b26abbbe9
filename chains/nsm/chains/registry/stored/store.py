"""A registry's store on any backend; the last element of a chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from nsm.apis import codec
from nsm.chains.core import (
    Found,
    InvalidRequest,
    Limits,
    R,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Tasks,
    counts,
)
from nsm.chains.registry.memory import Memory

from .backend import Backend, Entry
from .collector import Collector
from .index import Index
from .lives import Lives
from .rules import Rules
from .writes import Writes

RECORDS = counts.Reading("nsm_registry_records", "Records of this registry", "kind")
WATCHES = counts.Reading("nsm_registry_watches", "Callers that watch this registry", "kind")


class Stored(RegistryElement[R]):
    """Keep records in `backend`; Find returns what the backend has reported.

    If the storage is unreachable, Register and Unregister fail with `Unavailable` or `TimedOut`, and Find returns what
    is known. Nothing expires meanwhile, since nothing can be renewed. No other state is kept here, so any replica may
    serve the next call for a name.
    """

    def __init__(
        self, backend: Backend[R], rules: Rules[R], lives: Lives[R], *, name: str = "records", limits: Limits
    ) -> None:
        """`name` is for task names: `services`, `endpoints`."""
        self._backend = backend
        self._running = AsyncExitStack()
        self._tasks = Tasks(f"store of {name}")
        self.index: Index[R] = Index(
            backend,
            lives,
            limits=limits,
            is_cut_off=lambda: self._writes.fail or backend.is_cut_off,
            over=self._over,
        )
        self._memory = Memory(self.index.records)
        self._writes = Writes(backend, rules, lives, self.index)
        self._collector = Collector(self._tasks)
        backend.observe(self.index.observe)
        RECORDS.of(self, lambda stored: {(name,): len(stored.index.records)})
        WATCHES.of(self, lambda stored: {(name,): stored.index.records.watches})

    async def open(self) -> None:
        """Start following the backend, and wait until its content is known. Not needed in memory."""
        await self._running.enter_async_context(self._backend)
        await self._backend.synced()

    async def aclose(self) -> None:
        """Stop timers and tasks, and close the backend."""
        self.index.close()
        await self._tasks.aclose()
        await self._running.aclose()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Write the record once the rest of the chain has accepted it."""
        if not call.record.name:
            raise InvalidRequest(f"the {type(call.record).__name__} has no name")
        record = await rest.register(call)
        return await self._writes.register(codec.clone(record), call.remaining())

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """The matches; a watch continues."""
        return self._memory.find(call, rest)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Delete the record."""
        await rest.unregister(call)
        await self._writes.unregister(codec.clone(call.record), call.remaining())

    def _over(self, ended: Entry[R]) -> None:
        if ended.is_ours:
            self._collector.collect(ended, self.index.at, self._backend.delete)
