"""The log of one component, limited by size and level."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LARGEST = 8 << 20
"""The size in bytes at which a log is rotated; one old log is kept."""
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_NAMES = {"WARN": 30, "WARNING": 30, "ERROR": 40}


def component_level(wanted: str) -> str:
    """The level at which a component must log, so that the supervisor sees that it is ready."""
    return "INFO" if wanted.upper() in _NAMES else wanted


def parsed(line: bytes) -> dict[str, Any] | None:
    """The event in a line of a component's output; None for anything else, such as a traceback."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "event" in said else None


class LogFile:
    """The file for one component's output."""

    def __init__(self, path: Path, wanted: str) -> None:
        self._path, self._lowest = path, _NAMES.get(wanted.upper(), 0)
        self._file = self._open()

    def append(self, line: bytes, said: dict[str, Any] | None) -> None:
        """Append `line`, with the parsed event `said`, unless its level is too low."""
        if said is not None and _LEVELS.get(said.get("level", ""), self._lowest) < self._lowest:
            return
        self._file.write(line)
        if self._file.tell() > LARGEST:
            self._file.close()
            os.replace(self._path, old(self._path))
            self._file = self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @staticmethod
    def remove(path: Path) -> None:
        """Remove the log at `path`, including the old one."""
        path.unlink(missing_ok=True)
        old(path).unlink(missing_ok=True)

    def _open(self) -> Any:
        return open(self._path, "ab", buffering=0)


def names_in(folder: Path) -> list[str]:
    """The components that have a log in `folder`."""
    return sorted(name for name in os.listdir(folder) if not name.endswith(".old"))


def old(path: Path) -> Path:
    """The log that was rotated last, of the log at `path`."""
    return path.with_name(f"{path.name}.old")
