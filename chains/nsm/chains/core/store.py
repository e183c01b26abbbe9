"""The state of one connection, which ends with it.

`Begin` owns one `Store` for each live connection. Elements keep their state of a connection there, under keys of
their own; they also start tasks and timers of a connection here. When the connection ends (closed, failed at its
first request, or the service stops) everything in it ends too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from nsm.chains.errors import MeshError

from .events import EventFactory
from .tasks import Tasks, log_defect, log_event

T = TypeVar("T")

Cleanup = Callable[[], Awaitable[None] | None]


class Key(Generic[T]):
    """A typed slot of a store. Identity counts: two elements of one class in one chain do not share a slot."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


class Store:
    """The entries, tasks, timers and clean-ups of one connection."""

    __slots__ = ("_cleanups", "_entries", "_tasks", "_timers", "connection_id", "events")

    def __init__(self, connection_id: str, events: EventFactory) -> None:
        self.connection_id = connection_id
        self.events = events
        self._entries: dict[Key[Any], Any] = {}
        self._tasks = Tasks(f"connection {connection_id}")
        self._timers: dict[Key[None], asyncio.TimerHandle] = {}
        self._cleanups: list[Cleanup] = []

    def __len__(self) -> int:
        """The number of entries, tasks and timers, which a leak test counts."""
        return len(self._entries) + len(self._tasks) + len(self._timers)

    def get(self, key: Key[T]) -> T | None:
        """The entry under `key`, or None."""
        return cast("T | None", self._entries.get(key))

    def put(self, key: Key[T], value: T) -> T:
        """Set the entry under `key` and return it."""
        self._entries[key] = value
        return value

    def setdefault(self, key: Key[T], factory: Callable[[], T]) -> T:
        """The entry under `key`; the first caller makes it with `factory`."""
        if key not in self._entries:
            self._entries[key] = factory()
        return cast(T, self._entries[key])

    def pop(self, key: Key[T]) -> T | None:
        """Remove the entry under `key` and return it, or None."""
        return cast("T | None", self._entries.pop(key, None))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run `work` for as long as the connection lives; an exception is logged as a defect."""
        return self._tasks.spawn(work, name=f"{name} of {self.connection_id}")

    def schedule(self, key: Key[None], when: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` at the loop's time `when` (seconds); replaces whatever was scheduled under `key`."""
        self.unschedule(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_at(when, self._fire, key, work)

    def is_scheduled(self, key: Key[None]) -> bool:
        """Whether the work under `key` has not started yet."""
        return key in self._timers

    def unschedule(self, key: Key[None]) -> None:
        """Cancel the work that is scheduled under `key`, if it has not started."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    def on_end(self, cleanup: Cleanup) -> None:
        """Call `cleanup` when the connection ends; the last one registered runs first."""
        self._cleanups.append(cleanup)

    async def dispose(self) -> None:
        """End everything: timers, tasks, clean-ups, entries. Called by `Begin`; a second call does nothing."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._tasks.aclose()
        while self._cleanups:
            await run_cleanup(self._cleanups.pop(), f"connection {self.connection_id}")
        self._entries.clear()

    def _fire(self, key: Key[None], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._timers.pop(key, None)
        self.spawn(work(), name=key.name)


async def run_cleanup(cleanup: Cleanup, owner: str) -> None:
    """Run one clean-up; an exception is logged and must not keep the others from running."""
    try:
        result = cleanup()
        if inspect.isawaitable(result):
            await result
    except MeshError as error:  # most often a peer that is gone
        log_event("clean-up failed", owner=owner, error=str(error))
    except Exception as error:
        log_defect("clean-up failed", owner, error)
