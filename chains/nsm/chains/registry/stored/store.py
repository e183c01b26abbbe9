"""A registry's store on any backend: stands last in a chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from nsm.apis import codec
from nsm.chains.core import Found, InvalidRequest, Limits, R, RegistryCall, RegistryElement, RegistryHandler, Tasks
from nsm.chains.registry.memory import Memory

from .backend import Backend, Entry
from .collector import Collector
from .index import Index
from .lives import Lives
from .rules import Rules
from .writes import Writes


class Stored(RegistryElement[R]):
    """Keep records in `backend`; Find returns what the backend has reported.

    Storage that cannot be reached fails Register and
    Unregister with `Unavailable` or `TimedOut`; Find returns what was known. Nothing can be renewed then, so nothing
    ends. Nothing of a registration is kept here beside, so any replica may get the next call for a name.
    """

    def __init__(
        self, backend: Backend[R], rules: Rules[R], lives: Lives[R], *, name: str = "records", limits: Limits
    ) -> None:
        """`name` is for tasks: `services`, `endpoints`."""
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

    async def open(self) -> None:
        """Begin to keep up with the backend, and wait until what it holds is known. In memory there is no need to."""
        await self._running.enter_async_context(self._backend)
        await self._backend.synced()

    async def aclose(self) -> None:
        """Stop timers and tasks, and leave the backend."""
        self.index.close()
        await self._tasks.aclose()
        await self._running.aclose()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Write what the rest of the chain accepted."""
        if not call.record.name:
            raise InvalidRequest(f"the {type(call.record).__name__} has no name")
        record = await rest.register(call)
        return await self._writes.register(codec.clone(record), call.remaining())

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """What matches; a watch goes on."""
        return self._memory.find(call, rest)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Delete it."""
        await rest.unregister(call)
        await self._writes.unregister(codec.clone(call.record), call.remaining())

    def _over(self, ended: Entry[R]) -> None:
        if ended.is_ours:
            self._collector.collect(ended, self.index.at, self._backend.delete)
