"""The records that a backend has reported, which Find returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from nsm.chains.core import Limits, R
from nsm.chains.logs import log
from nsm.chains.model.record_limits import MOST_HOPS, excess
from nsm.chains.registry.memory import Records

from .backend import Backend, Entry, Key
from .lives import Lives, is_live


@dataclass(slots=True)
class _Held(Generic[R]):
    """An entry that has a record, and that record."""

    entry: Entry[R]
    record: R
    timer: asyncio.TimerHandle | None = None


class Index(Generic[R]):
    """The records of a backend's entries, until they expire.

    If several entries hold records of one name, Find returns the one with the lowest precedence. A record is removed
    when it expires, and `over` is called with its entry, to delete it.

    While the backend is cut off, registrations cannot be renewed, so nothing expires: a record that would is prolonged
    until the backend is back.

    An entry without a valid record, or with one that exceeds `limits`, is reported, and the previous record stays in
    force.
    """

    def __init__(
        self,
        backend: Backend[R],
        lives: Lives[R],
        *,
        limits: Limits,
        is_cut_off: Callable[[], bool],
        over: Callable[[Entry[R]], None],
    ) -> None:
        self.records: Records[R] = Records()
        self._backend, self._lives, self._limits = backend, lives, limits
        self._is_cut_off, self._over = is_cut_off, over
        self._held: dict[Key, _Held[R]] = {}
        self._named: dict[str, set[Key]] = {}
        self._awaited: dict[Key, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """The number of entries with records, including expired ones."""
        return len(self._held)

    def at(self, key: Key) -> Entry[R] | None:
        """The last reported entry of that key that had a record."""
        held = self._held.get(key)
        return None if held is None else held.entry

    def as_reported(self, entry: Entry[R]) -> Entry[R]:
        """The entry with the lifetime that it was given here, if it is still the same version."""
        held = self._held.get(entry.key)
        return held.entry if held is not None and held.entry.version == entry.version else entry

    def observe(self, key: Key, entry: Entry[R] | None) -> None:
        """Apply a change that the backend reports."""
        if entry is None:
            self._drop(key)
        else:
            self._take(entry)
        for waiting in self._awaited.pop(key, ()):
            if not waiting.done():
                waiting.set_result(None)

    async def seen(self, written: Entry[R], timeout: float) -> bool:
        """Wait until `written` or a later version is reported; False if that takes more than `timeout` seconds."""

        def is_seen() -> bool:
            there = self.at(written.key)
            return there is not None and there.version >= written.version

        return await self._until(written.key, is_seen, timeout)

    async def gone(self, deleted: Entry[R], timeout: float) -> bool:
        """Wait until the deletion of `deleted` is reported; False if that takes more than `timeout` seconds."""

        def is_gone() -> bool:
            there = self.at(deleted.key)
            return there is None or there.version > deleted.version

        return await self._until(deleted.key, is_gone, timeout)

    def close(self) -> None:
        """Stop all timers."""
        for held in self._held.values():
            _stop(held)

    def _take(self, entry: Entry[R]) -> None:
        record = entry.record
        if record is None:
            return
        if (fault := excess(record, self._limits, hops=MOST_HOPS, size=entry.size)) is not None:
            self._backend.complain(entry, f"it is too large: {fault.text}")
            return
        key = entry.key
        before = self._held.get(key)
        if before is not None and before.record.name != record.name:
            self._drop(key)
        elif before is not None:
            _stop(before)
        self._held[key] = held = _Held(entry, record)
        self._named.setdefault(record.name, set()).add(key)
        self._set_timer(held)
        self._choose(record.name)

    def _drop(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        _stop(held)
        keys = self._named[held.record.name]
        keys.discard(key)
        if not keys:
            del self._named[held.record.name]
        self._choose(held.record.name)

    def _choose(self, name: str) -> None:
        """Have Find return the live record of that name with the lowest precedence, if any."""
        live = [held for key in self._named.get(name, ()) if self._is_live(held := self._held[key])]
        if not live:
            self.records.pop(name)
            return
        best = live[0] if len(live) == 1 else min(live, key=lambda held: held.entry.precedence)
        if self.records.get(name) is not best.record:
            self.records.put(best.record)

    def _is_live(self, held: _Held[R]) -> bool:
        return is_live(self._lives.ends(held.entry))

    def _set_timer(self, held: _Held[R]) -> None:
        ends = self._lives.ends(held.entry)
        if ends is not None:
            seconds = max(0.0, ends - time.time())
            held.timer = asyncio.get_running_loop().call_later(seconds, self._ends, held)

    def _ends(self, held: _Held[R]) -> None:
        if self._is_cut_off() or self._lives.is_needed(held.record):
            held.entry = self._lives.prolonged(held.entry)
            assert held.entry.record is not None
            held.record = held.entry.record
            self._set_timer(held)
        elif self._is_live(held):  # a timer may be early by the clock's resolution
            self._set_timer(held)
        else:
            log.info("registration expired", name=held.record.name)
            self._over(held.entry)
        self._choose(held.record.name)

    async def _until(self, key: Key, condition: Callable[[], bool], timeout: float) -> bool:
        if condition():
            return True
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._change_of(key)
        except TimeoutError:
            return False
        return True

    async def _change_of(self, key: Key) -> None:
        waiting = asyncio.get_running_loop().create_future()
        together = self._awaited.setdefault(key, set())
        together.add(waiting)
        try:
            await waiting
        finally:
            together.discard(waiting)
            if not together and self._awaited.get(key) is together:
                del self._awaited[key]


def _stop(held: _Held[R]) -> None:
    if held.timer is not None:
        held.timer.cancel()
        held.timer = None
