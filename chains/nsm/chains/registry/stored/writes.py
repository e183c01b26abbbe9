"""Writes records to a backend; versions decide between concurrent writers."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from nsm.chains.core import Conflict, R, Refused, TimedOut, Unavailable

from .backend import Backend, Changed, Entry, Key, Missing
from .index import Index
from .lives import Lives, is_live
from .rules import Rules

T = TypeVar("T")

_TRIES = 20
"""Attempts to write when others are faster."""
_STEP = 0.01
"""Seconds by which the longest pause grows with each attempt; pauses are random, so that replicas do not collide."""
_SEEN_WITHIN = 1.0
"""Seconds that a write waits until the backend reports it, so that the next query here finds it."""
_REMEMBERED = 30.0
"""Seconds during which a failed or unreported write, without a later success, means that the storage is down."""
_PATIENCE = 1.0
"""Seconds that the storage may take for a write; a caller with less time that gives up proves nothing."""


class Writes(Generic[R]):
    """Register and unregister in a backend, as the rules allow.

    The current entry is looked up in the index first. The backend is queried if that is outdated, and before a call is
    answered without a write, because nothing changes or because the current entry forbids it. Calls for one name are
    serialised, so that only other replicas can interfere.
    """

    def __init__(self, backend: Backend[R], rules: Rules[R], lives: Lives[R], index: Index[R]) -> None:
        self._backend, self._rules, self._lives, self._index = backend, rules, lives, index
        self._failed_at = self._wrote_at = -math.inf
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    @property
    def fail(self) -> bool:
        """Whether the backend seems to reject writes, or not to report them."""
        now = asyncio.get_running_loop().time()
        return self._wrote_at < self._failed_at and now - self._failed_at < _REMEMBERED

    async def register(self, record: R, within: float | None) -> R:
        """Write `record` over the current entry, within so many seconds; returns it as stored.

        Raises `Refused` or `Conflict` by the rules, `InvalidRequest`, `Unavailable`, `TimedOut`.
        """
        return await self._in_time(self._write(record), within, record.name)

    async def unregister(self, record: R, within: float | None) -> None:
        """Delete the record of that name, if there is one. Raises as `register` does."""
        await self._in_time(self._delete(record), within, record.name)

    async def _in_time(self, work: Awaitable[T], within: float | None, name: str) -> T:
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(within):
                return await work
        except TimeoutError:
            if now() - began >= _PATIENCE and self._wrote_at < began:
                self._failed_at = now()
            raise TimedOut(f"{self._backend} did not store {name!r} within the caller's deadline") from None
        except Unavailable:
            self._failed_at = now()
            raise

    async def _write(self, record: R) -> R:
        key = self._backend.key_of(record.name)
        async with self._turns.setdefault(key, asyncio.Lock()):
            return await self._write_at(key, record)

    async def _write_at(self, key: Key, record: R) -> R:
        held = self._index.at(key)
        if held is not None and self._needs_no_write(record, held):
            held = await self._backend.get(key)
        for tries in range(_TRIES):
            if held is not None and held.blocked:
                raise Conflict(held.blocked)
            there = self._live_in(record, held)
            wanted = self._rules.merged(record, there)
            if wanted is None:
                assert there is not None
                assert held is not None
                if not self._lives.is_due(held):
                    return there
                wanted = there
            try:
                written = await self._backend.put(wanted, held)
            except Changed:
                held = await self._get_after(tries, key)
            except Missing:
                if held is None:
                    raise
                held = None
            else:
                self._note(seen=await self._index.seen(written, _SEEN_WITHIN))
                assert written.record is not None
                return written.record
        raise Conflict(f"{record.name!r} was changed by others in each of {_TRIES} attempts to register it")

    def _note(self, *, seen: bool) -> None:
        now = asyncio.get_running_loop().time()
        if seen:
            self._wrote_at = now
        else:
            self._failed_at = now

    def _needs_no_write(self, record: R, held: Entry[R]) -> bool:
        """Whether nothing would be written over `held`, so that a write cannot reveal that it is outdated."""
        try:
            return self._rules.merged(record, self._live_in(record, held)) is None
        except (Refused, Conflict):
            return True

    async def _delete(self, record: R) -> None:
        key = self._backend.key_of(record.name)
        async with self._turns.setdefault(key, asyncio.Lock()):
            await self._delete_at(key, record)

    async def _delete_at(self, key: Key, record: R) -> None:
        held = self._index.at(key)
        if held is None or self._needs_no_delete(record, held):
            held = await self._backend.get(key)
        for tries in range(_TRIES):
            if held is None or not self._may_remove(record, held):
                return
            try:
                await self._backend.delete(held)
            except Changed:
                held = await self._get_after(tries, key)
            except Missing:
                return
            else:
                await self._index.gone(held, _SEEN_WITHIN)
                return
        raise Conflict(f"{record.name!r} was changed by others in each of {_TRIES} attempts to unregister it")

    def _needs_no_delete(self, record: R, held: Entry[R]) -> bool:
        """Whether `held` would stay; the same as `_needs_no_write` for an Unregister."""
        try:
            return not self._may_remove(record, held)
        except (Refused, Conflict):
            return True

    def _may_remove(self, record: R, held: Entry[R]) -> bool:
        there = self._live_in(record, held)
        return there is None or self._rules.may_remove(record, there)

    async def _get_after(self, tries: int, key: Key) -> Entry[R] | None:
        """The entry that another writer has stored, after a pause."""
        await asyncio.sleep(random.uniform(0, _STEP * tries))  # noqa: S311 - no secret
        return await self._backend.get(key)

    def _live_in(self, record: R, held: Entry[R] | None) -> R | None:
        """The live record in `held`; None if it may be overwritten.

        An entry that cannot be fully parsed may contain rules for clients. Its last valid record counts; if that is not
        known, `Conflict` is raised.
        """
        if held is None:
            return None
        entry = held if held.record is not None else self._index.at(held.key)
        if entry is None or entry.record is None:
            if held.fault:
                raise Conflict(held.fault)
            return None
        if entry.record.name != record.name:
            raise Conflict(
                f"{held.place} is for {entry.record.name!r}, not for {record.name!r}; delete it, or correct its name"
            )
        entry = self._index.as_reported(entry)
        return entry.record if is_live(self._lives.ends(entry)) else None
