"""Writes a client's connections to files, from which its next process continues them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.chains.core import DEFAULT_LIMITS, Call, Element, Handler, InvalidRequest, Limits
from nsm.chains.logs import log
from nsm.chains.model.bounds import check_connection

_SUFFIX, _FRESH = ".connection", ".new"
_LARGEST = 1 << 20
_KEPT = 24 * 3600.0
"""Seconds after the end of its tokens for which an entry is kept: by default, orphans are kept for that long."""


class Memory:
    """The connections of a client in `folder`, a file each, without tokens.

    Until the first token of its path expires, every component on the path has the connection, even if it was restarted
    and learns of it with the next Request. After that, the wire may still exist as an orphan (`is_over`). Older entries
    are removed when they are read. Read and write errors are one warning.
    """

    def __init__(self, folder: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._folder, self._limits, self._is_told = Path(folder), limits, False

    def keep(self, connection: Connection) -> None:
        """Write the connection, in place of its earlier entry."""
        copy = codec.clone(connection)
        for segment in copy.path.path_segments if copy.path is not None else ():
            segment.token = ""
        file = self._file(_id(copy))
        fresh = file.with_suffix(_FRESH)
        with self._told("written"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fresh.write_bytes(codec.encode(copy))
            fresh.replace(file)

    def forget(self, connection_id: str) -> None:
        """Remove it."""
        with self._told("removed"):
            self._file(connection_id).unlink(missing_ok=True)

    def recall(self, connection_id: str) -> Connection | None:
        """The connection as its client sees it; None if there is no readable entry."""
        return next((each for each in self._read(self._file(connection_id)) if each.id == connection_id), None)

    def all(self) -> list[Connection]:
        """All entries; those of no use are removed."""
        found: list[Connection] = []
        with self._told("read"):
            for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
                entries = [*self._read(file)]
                found += entries
                if not entries:
                    file.unlink(missing_ok=True)
            for file in self._folder.glob(f"*{_FRESH}"):
                file.unlink(missing_ok=True)
        return found

    def _read(self, file: Path) -> Iterator[Connection]:
        try:
            with file.open("rb") as opened:
                connection = codec.decode(Connection, opened.read(_LARGEST))
            check_connection(connection, self._limits)
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, InvalidRequest) as error:
            log.info("a connection of an earlier process cannot be read", file=str(file), error=str(error))
            return
        if connection.path is not None and connection.path.path_segments and time.time() < _end(connection) + _KEPT:
            connection.id, connection.path.index = _id(connection), 0
            yield connection

    def _file(self, connection_id: str) -> Path:
        return self._folder / (hashlib.sha256(connection_id.encode()).hexdigest()[:32] + _SUFFIX)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_told:
                event = f"connections cannot be {what} in NSM_STATE_FOLDER; a restarted client asks its manager"
                log.warning(event, folder=str(self._folder), error=error.strerror)
            self._is_told = True


class Remember(Element):
    """Keep in `memory` the answer to each Request of the client, until its connection is closed."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Write the answer."""
        connection = await rest.request(call)
        self._memory.keep(connection)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget the connection, even if the Close fails."""
        try:
            await rest.close(call)
        finally:
            self._memory.forget(call.live.connection_id)


def _id(connection: Connection) -> str:
    """Its client's name for it."""
    segments = connection.path.path_segments if connection.path is not None else []
    return segments[0].id if segments else connection.id


def is_over(connection: Connection) -> bool:
    """Whether a token of its path has expired: unless its wire still exists, its addresses may be another client's."""
    return _end(connection) <= time.time()


def _end(connection: Connection) -> float:
    segments = connection.path.path_segments if connection.path is not None else []
    ends = [segment.expires.to_seconds() for segment in segments if segment.expires is not None]
    return min(ends, default=0.0)
