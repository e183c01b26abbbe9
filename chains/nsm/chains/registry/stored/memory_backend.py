"""Records in the memory of this process."""

from __future__ import annotations

import time
from itertools import count
from types import TracebackType

from nsm.chains.core import R
from nsm.chains.logs import log

from .backend import Backend, Entry, Key, Observe, expect


class MemoryBackend(Backend[R]):
    """Keeps records in a dictionary; needs no start or stop."""

    is_cut_off = False

    def __init__(self) -> None:
        self._entries: dict[Key, Entry[R]] = {}
        self._versions = count(1)
        self._report: Observe[R] = lambda *_: None

    def observe(self, observe: Observe[R]) -> None:
        """Report to `observe`."""
        self._report = observe

    async def __aenter__(self) -> MemoryBackend[R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""

    async def synced(self) -> None:
        """Nothing to wait for."""

    def key_of(self, name: str) -> Key:
        """The name."""
        return name

    async def get(self, key: Key) -> Entry[R] | None:
        """What is stored under that name."""
        return self._entries.get(key)

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Store it. Raises `Changed` or `Missing`."""
        key = record.name
        expect(self._entries.get(key), held)
        entry = Entry(key, next(self._versions), record, time.time(), place=f"the record {key!r}")
        self._entries[key] = entry
        self._report(key, entry)
        return entry

    async def delete(self, held: Entry[R]) -> None:
        """Delete it. Raises `Changed` or `Missing`."""
        expect(self._entries.get(held.key), held)
        del self._entries[held.key]
        self._report(held.key, None)

    def complain(self, about: Entry[R], fault: str) -> None:
        """In the log."""
        log.warning("record ignored", record=about.place, fault=fault)
