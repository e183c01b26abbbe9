"""Records of one kind in an SQLite file, as a backend of a registry."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from nsm.apis import codec
from nsm.chains.core import Kind, R
from nsm.chains.logs import log
from nsm.chains.registry.stored import Backend, Entry, Key
from nsm.chains.registry.stored.backend import Observe, expect

from .database import Database, Row


class Sqlite(Backend[R]):
    """Also keeps the file's content in memory, since no other process writes to it. Needs an open `database`."""

    is_cut_off = False

    def __init__(self, database: Database, kind: Kind[R], rows: Iterable[Row]) -> None:
        """`rows` are those of the database; those of other kinds are skipped."""
        self._database, self._kind, self._name = database, kind, kind.record.__name__
        self._entries: dict[Key, Entry[R]] = {}
        self._observe: Observe[R] = lambda *_: None
        for row in rows:
            if row.kind == self._name:
                self._entries[row.name] = self._read(row)

    def __str__(self) -> str:
        return str(self._database)

    def observe(self, observe: Observe[R]) -> None:
        """Report to `observe`."""
        self._observe = observe

    async def __aenter__(self) -> Sqlite[R]:
        for key, entry in self._entries.items():
            if entry.record is None:
                self.complain(entry, "its bytes are not a valid record")
            self._observe(key, entry)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The database is not closed here."""

    async def synced(self) -> None:
        """Everything is reported on entering."""

    def key_of(self, name: str) -> Key:
        """The name."""
        return name

    async def get(self, key: Key) -> Entry[R] | None:
        """The entry in the file."""
        return self._entries.get(key)

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Write it. Raises `Changed`, `Missing`, `Unavailable`."""
        expect(self._entries.get(record.name), held)
        renewed, data = time.time(), codec.encode(record)
        written: list[Entry[R]] = []

        def applied(version: int) -> None:
            entry = self._entry(record.name, version, record, renewed, len(data))
            self._entries[record.name] = entry
            self._observe(record.name, entry)
            written.append(entry)

        await self._database.put(self._name, record.name, renewed, data, applied)
        return written[0]

    async def delete(self, held: Entry[R]) -> None:
        """Delete it. Raises `Changed`, `Missing`, `Unavailable`."""
        expect(self._entries.get(held.key), held)

        def applied(_version: int) -> None:
            self._entries.pop(held.key, None)
            self._observe(held.key, None)

        await self._database.delete(self._name, str(held.key), applied)

    def complain(self, about: Entry[R], fault: str) -> None:
        """In the log."""
        log.warning("record ignored", file=str(self._database), record=about.place, fault=fault)

    def _read(self, row: Row) -> Entry[R]:
        try:
            record = codec.decode(self._kind.record, row.record)
        except codec.DecodeError:  # nothing in a file may keep a registry from starting
            record = None
        is_sound = record is not None and record.name == row.name
        return self._entry(row.name, row.version, record if is_sound else None, row.renewed, len(row.record))

    def _entry(self, name: str, version: int, record: R | None, renewed: float, size: int) -> Entry[R]:
        return Entry(name, version, record, renewed, place=f"the {self._kind.noun} {name!r}", size=size)
