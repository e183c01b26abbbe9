"""Background work with an owner and a name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from nsm.chains.logs import named

T = TypeVar("T")
U = TypeVar("U")

_log = named("nsm.tasks")

_PATIENCE = 1.0
"""Seconds after which a task is cancelled again if a library kept it from being cancelled."""


class Tasks:
    """A set of named tasks that end with their owner.

    Unlike `asyncio.TaskGroup` one task's failure does not end its siblings: it is logged as a defect, since the
    owner (a connection, a service) continues without it.
    """

    __slots__ = ("_live", "_owner")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._live: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._live)

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start `work`; it is cancelled when the owner ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._live.add(task)
        task.add_done_callback(self._done)
        return task

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start `work` for a caller that awaits the task and so receives its exception; nothing is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._live.add(task)
        task.add_done_callback(self._done_quietly)
        return task

    async def aclose(self) -> None:
        """Cancel every task and wait for its end; the calling task, if it is one of them, continues."""
        mine = asyncio.current_task()
        ending = {task for task in self._live if task is not mine}
        while ending:
            for task in ending:
                task.cancel()
            ending = (await asyncio.wait(ending, timeout=_PATIENCE))[1]

    async def __aenter__(self) -> Tasks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._live.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log_defect(f"task {task.get_name()} failed", self._owner, error)

    def _done_quietly(self, task: asyncio.Task[None]) -> None:
        self._live.discard(task)
        if not task.cancelled():
            task.exception()


def log_event(event: str, **values: str) -> None:
    """Log an outside failure that does not stop us."""
    _log.warning(event, **values)


def log_defect(event: str, owner: str, error: BaseException) -> None:
    """Log an exception that should not have been raised, with its origin."""
    _log.error(event, owner=owner, error=repr(error), exc_info=error)


async def together(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run both at once; if one fails, or the caller is cancelled, both are cancelled. Raises the first exception."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        first, second = await asyncio.gather(*tasks)
        return first, second
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        del tasks, task  # they hold their errors, whose tracebacks hold this frame


async def both_to_the_end(one: Awaitable[object], other: Awaitable[object]) -> None:
    """Run both at once and to their end, even if one fails; raises the first one's error, else the other's."""
    results = await asyncio.gather(one, other, return_exceptions=True)
    error = next((each for each in results if isinstance(each, BaseException)), None)
    try:
        if error is not None:
            raise error
    finally:
        del results, error  # an error's traceback holds this frame


async def shielded(work: Coroutine[Any, Any, T], *, name: str) -> T:
    """Run `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break
    try:
        if cancelled is not None:
            raise cancelled
        return task.result()
    finally:
        del task, cancelled  # an error's traceback holds this frame, and the frame must not hold the error
