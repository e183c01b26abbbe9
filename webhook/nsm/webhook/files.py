"""A certificate in files that are replaced from outside: by cert-manager, or as a mounted Secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nsm.chains.core import InvalidRequest
from nsm.chains.logs import log


class FollowedFiles:
    """Passes the concatenated content of some files to `use` when it changes.

    `use` raises ValueError for invalid content: half-written files will soon be complete, so the last valid content
    stays in force until then.
    """

    def __init__(self, paths: list[str], use: Callable[[bytes], None]) -> None:
        self._paths, self._use = [Path(path) for path in paths], use
        self._seen, self._refused = b"", ""

    def read(self) -> None:
        """Read them for the first time. Raises `InvalidRequest` with what is wrong."""
        try:
            self._take()
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{self._names()}: {error}") from None

    def look(self) -> None:
        """Read them again; invalid content is logged as a warning, once."""
        try:
            self._take()
        except (OSError, ValueError) as error:
            if str(error) != self._refused:
                log.warning(
                    "files cannot be used; their previous content stays in force", files=self._names(), error=str(error)
                )
            self._refused = str(error)
        else:
            self._refused = ""

    def _take(self) -> None:
        content = b"\n".join(path.read_bytes() for path in self._paths)
        if content != self._seen:
            self._use(content)
            self._seen = content

    def _names(self) -> str:
        return ", ".join(map(str, self._paths))
