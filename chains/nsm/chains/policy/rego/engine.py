"""Evaluates Rego policies for this process: off the event loop, with limits, one call per identity at a time."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

from .process import Process, Unanswered
from .source import Source

T = TypeVar("T")

PROCESSES = 2
SECONDS = 1.0
"""Time limit for all policies of a call, in seconds."""
LOAD_SECONDS = 3.0
WAITING = 256
"""Calls of one identity that may wait; one of them is evaluated at a time."""
PAUSE = 1.0
"""Seconds that an identity's next call waits after one that timed out or crashed a process."""
MOST_INPUT = 1 << 20

_REASONS = {
    "false": "its rule `valid` is false",
    "undefined": "its rule `valid` is undefined",
    "other": "its rule `valid` is neither true nor false",
}


class Engine:
    """Loads and evaluates policies in `PROCESSES` separate processes, started on demand.

    One call per identity is evaluated at a time. An identity whose calls make a policy run into its time limit delays
    only its own calls, as long as fewer than `PROCESSES` identities do so at once.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="rego")
        self._processes: queue.SimpleQueue[Process] = queue.SimpleQueue()
        for _ in range(PROCESSES):
            self._processes.put(Process())
        self._turns: dict[str, _Turn] = {}

    def load(self, source: Source) -> None:
        """Check that `source` can be evaluated. Blocks. Raises ValueError with the location, ``FILE:LINE: fault``."""
        self._with_process(lambda process: _load(process, source))

    async def refusal(self, sources: Sequence[Source], document: Mapping[str, Any], whose: str) -> str | None:
        """Why the first of `sources` that does not allow `document` refuses it, as ``policy: reason``, or None.

        A document that cannot be evaluated in time is refused. `whose` is the identity that makes the call.
        """
        if not _fits(document):
            return f"{sources[0].title}: the call cannot be passed to the engine: a text in it is too long or not valid"
        turn = self._turn(whose)
        if turn.calls >= WAITING:
            return f"{sources[0].title}: {WAITING} calls of {whose} are already waiting for a decision"
        turn.calls += 1
        try:
            await turn.lock.acquire()
        except BaseException:
            self._leave(whose, turn)
            raise
        work = self._threads.submit(self._with_process, lambda process: _refusal(process, sources, document))
        work.add_done_callback(self._ending(whose, turn))  # even if the caller has stopped waiting
        return (await asyncio.wrap_future(work)).refusal

    def _turn(self, whose: str) -> _Turn:
        turn = self._turns.get(whose)
        if turn is None or turn.loop is not asyncio.get_running_loop():
            turn = self._turns[whose] = _Turn()
        return turn

    def _ending(self, whose: str, turn: _Turn) -> Callable[[Future[_Outcome]], None]:
        def end() -> None:
            turn.lock.release()
            self._leave(whose, turn)

        def ended(work: Future[_Outcome]) -> None:
            pause = PAUSE if not work.cancelled() and work.exception() is None and work.result().is_costly else 0.0
            with suppress(RuntimeError):  # the loop is closed, so no call is waiting
                turn.loop.call_soon_threadsafe(turn.loop.call_later, pause, end)

        return ended

    def _leave(self, whose: str, turn: _Turn) -> None:
        turn.calls -= 1
        if not turn.calls and self._turns.get(whose) is turn:
            del self._turns[whose]

    def _with_process(self, work: Callable[[Process], T]) -> T:
        process = self._processes.get()
        known = list(process.knows.values())
        try:
            return work(process)
        finally:
            if known and not process.knows:
                _revive(process, known)
            self._processes.put(process)


@cache
def engine() -> Engine:
    """The engine of this process. Raises ValueError if the library is not installed."""
    if find_spec("regorus") is None:
        raise ValueError("policies in files need the extra nsm-chains[rego]")
    return Engine()


@dataclass(frozen=True)
class _Outcome:
    """The result of a call, and whether it crashed or blocked a process."""

    refusal: str | None
    is_costly: bool = False


class _Turn:
    """The calls of one identity, evaluated one at a time."""

    def __init__(self) -> None:
        self.loop, self.lock = asyncio.get_running_loop(), asyncio.Lock()
        self.calls = 0


def _load(process: Process, source: Source) -> None:
    question = {"load": source.path, "text": source.text, "package": source.package}
    try:
        answer = process.ask(question, LOAD_SECONDS)
    except Unanswered as error:
        raise ValueError(f"{source.path}: {error}") from None
    if "error" in answer:
        raise ValueError(f"{source.path}:{answer['line'] or 1}: {answer['error']}")
    process.knows[source.path] = source


def _revive(process: Process, sources: Sequence[Source]) -> None:
    """Restart a process and reload its policies, on the time of the call that crashed it, not of the next one."""
    with suppress(ValueError):
        for source in sources:
            _load(process, source)


def _refusal(process: Process, sources: Sequence[Source], document: Mapping[str, Any]) -> _Outcome:
    try:
        for source in sources:
            if process.knows.get(source.path) is not source:
                _load(process, source)
        values = process.ask({"ask": [each.path for each in sources], "input": document}, SECONDS)["values"]
    except ValueError as error:
        return _Outcome(f"{sources[0].title}: {error}", is_costly=True)
    except Unanswered as error:
        return _Outcome(f"{' or '.join(each.title for each in sources)}: {error}", is_costly=True)
    if values[-1] == "true":
        return _Outcome(None)
    return _Outcome(f"{sources[len(values) - 1].title}: {_REASONS.get(values[-1], values[-1])}")


def _fits(document: Mapping[str, Any]) -> bool:
    """Whether the engine reads the document unchanged: a NUL would end a text, a lone surrogate is not valid text."""
    return _measured(document) < MOST_INPUT


def _measured(value: Any) -> int:
    if isinstance(value, str):
        return MOST_INPUT if "\0" in value or not _is_text(value) else len(value) + 1
    if isinstance(value, Mapping):
        return sum(_measured(key) + _measured(item) for key, item in value.items())
    if isinstance(value, Sequence):
        return sum(map(_measured, value))
    return 1


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
