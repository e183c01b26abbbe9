"""A file that says that all wires are up, to whoever can look at it and cannot ask: a probe in a pod."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from nsm.chains.core import InvalidRequest


class ReadyFile:
    """Is there from `write` until the client ends; an empty path is no file.

    What a client that was killed left is removed on entering. Raises `InvalidRequest` if it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def __enter__(self) -> ReadyFile:
        with self._told():
            if self._path is not None:
                self._path.parent.stat()
                self._path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """All wires are up."""
        with self._told():
            if self._path is not None:
                self._path.touch()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidRequest(f"NSM_READY_FILE={str(self._path)!r} cannot be written: {error.strerror}") from None
