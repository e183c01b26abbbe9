"""The file: opened by one process, written by one thread, several writes in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from nsm.chains.core import MeshError, Unavailable

T = TypeVar("T")

_APPLICATION = 0x4E534D31
"""Marks our files (`PRAGMA application_id`): ASCII NSM1."""
_FORMAT = 1
"""`PRAGMA user_version`; a newer one is refused."""
_SCHEMA = """
CREATE TABLE records (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    renewed REAL NOT NULL,
    record  BLOB NOT NULL,
    UNIQUE (kind, name)
)
"""
_PUT = "INSERT OR REPLACE INTO records (kind, name, renewed, record) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM records WHERE kind = ? AND name = ?"
_MOST_AT_ONCE = 512
"""Writes of one transaction."""


class Row(NamedTuple):
    """A stored record. `version` increases with each write to the file."""

    version: int
    kind: str
    name: str
    renewed: float
    record: bytes


@dataclass(slots=True)
class _Write:
    statement: str
    values: tuple[object, ...]
    applied: Callable[[int], None]
    done: asyncio.Future[None]
    version: int = 0
    fault: sqlite3.Error | None = None


class Database:
    """An SQLite file with records, for one process at a time.

    Entering opens it, or creates it if it is missing. Raises `MeshError` for a file that is not ours, that cannot be
    written, or that another registry has open. The journal is a write-ahead log: a write that has returned survives
    a crash of the process; a power cut can lose the last writes, but never the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nsm-sqlite")
        self._waiting: list[_Write] = []
        self._writer: asyncio.Task[None] | None = None
        self._open: sqlite3.Connection | None = None

    def __str__(self) -> str:
        return str(self.path)

    async def __aenter__(self) -> Database:
        try:
            self._open = await self._run(self._connect)
        except sqlite3.Error as error:
            self._thread.shutdown(wait=False)
            raise MeshError(f"{self.path} {_what(error)}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        with contextlib.suppress(sqlite3.Error):
            await self._run(self._connection.close)
        self._thread.shutdown(wait=False)

    async def rows(self) -> Sequence[Row]:
        """Everything that is stored, oldest first."""

        def read() -> list[Row]:
            found = self._connection.execute(
                "SELECT version, kind, name, renewed, record FROM records ORDER BY version"
            )
            return [Row(*row) for row in found]

        try:
            return await self._run(read)
        except sqlite3.Error as error:
            raise MeshError(f"{self.path} {_what(error)}") from error

    async def put(self, kind: str, name: str, renewed: float, record: bytes, applied: Callable[[int], None]) -> None:
        """Store a record; `applied` is called with its version once it is in the file, even after a cancellation.

        Raises `Unavailable` if it cannot be written: nothing has changed then.
        """
        await self._write(_PUT, (kind, name, renewed, record), applied)

    async def delete(self, kind: str, name: str, applied: Callable[[int], None]) -> None:
        """Delete a record, as `put`."""
        await self._write(_DELETE, (kind, name), applied)

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._open is not None
        return self._open

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            is_new = _is_new(connection)  # before the file is touched
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")  # takes the lock, and fails now if the file is not writable
            if is_new:
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
                connection.execute(_SCHEMA)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _write(self, statement: str, values: tuple[object, ...], applied: Callable[[int], None]) -> None:
        write = _Write(statement, values, applied, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all(), name=f"write {self.path.name}")
        await write.done

    async def _write_all(self) -> None:
        """Write everything that is queued, in consecutive transactions."""
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            await self._run(partial(self._commit, batch))
            for write in batch:
                self._report(write)

    def _report(self, write: _Write) -> None:
        if write.fault is None:
            write.applied(write.version)
        if write.done.cancelled():
            return
        if write.fault is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(Unavailable(f"{self.path} {_what(write.fault)}"))

    def _commit(self, batch: Sequence[_Write]) -> None:
        """Commit in one transaction; if it fails, each write separately, so that none fails because of another."""
        try:
            self._transact(batch)
        except sqlite3.Error as error:
            if len(batch) == 1:
                batch[0].fault = error
                return
            for write in batch:
                self._commit([write])

    def _transact(self, batch: Sequence[_Write]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for write in batch:
                write.version = self._connection.execute(write.statement, write.values).lastrowid or 0
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether the file is empty. Raises `sqlite3.DatabaseError` if its content is not ours."""
    ours = connection.execute("PRAGMA application_id").fetchone()[0]
    written = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if ours == 0 and tables == 0:
        return True
    if ours != _APPLICATION:
        raise sqlite3.DatabaseError("is a database of another program; use another file")
    if written > _FORMAT:
        raise sqlite3.DatabaseError(f"has format {written}, of a newer version; this one reads up to {_FORMAT}")
    return False


_WORDS = {
    sqlite3.SQLITE_NOTADB: "is not an SQLite database; move it away, or use another file",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it, or move it away: components will register again",
    sqlite3.SQLITE_READONLY: "cannot be written; check the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened or created; check that its folder exists and can be written",
    sqlite3.SQLITE_BUSY: "is in use by another process; each registry needs a file of its own",
    sqlite3.SQLITE_LOCKED: "is in use by another process; each registry needs a file of its own",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
}
_PRIMARY = 0xFF
"""The part of an extended result code that says what happened."""


def _what(error: sqlite3.Error) -> str:
    """The end of an error message, after the file's name."""
    code = getattr(error, "sqlite_errorcode", None)
    return str(error) if code is None else _WORDS.get(code & _PRIMARY, f"cannot be used: {error}")
