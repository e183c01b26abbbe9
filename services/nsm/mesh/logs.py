"""Reads the logs of components: merged by time, repeated lines folded, and followed while they grow."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from .logfile import names_in, old, parsed

_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MEASURED = {"ms", "attempt", "attempts", "expires"}
"""Values that differ between lines that say the same."""
_LOOK_AGAIN, _QUIET = 0.1, 2.0
"""Seconds: between two looks at growing logs, and after which a line that is repeated is counted at the latest."""


@dataclass(frozen=True)
class Line:
    """One line of a component's output."""

    time: str
    """ISO 8601 in UTC; of output that is no event: that of the event before."""
    component: str
    text: str
    meaning: str
    """Equal for lines that say the same at different times."""

    def shown(self, times: int = 1, last: str = "") -> str:
        """The line for people; `times` is how often it was repeated in a row, until `last`."""
        return self.text if times == 1 else f"{self.text}  (repeated {times} times, until {last[11:19]})"


def moment(text: str) -> str:
    """The time that `text` means, in ISO 8601: an age such as ``90s``, ``5m``, ``2h``, ``1d``, or a time.

    Raises `argparse.ArgumentTypeError`.
    """
    if (age := _AGE.fullmatch(text)) is not None:
        try:
            return (datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})).isoformat()
        except OverflowError:
            return ""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError:
        message = f"{text!r} is no time; expected an age such as 90s, 5m or 2h, or a time such as 2026-11-30T16:40:00Z"
        raise argparse.ArgumentTypeError(message) from None


def lines(folder: Path, names: Iterable[str], *, since: str = "", tail: int | None = None) -> list[str]:
    """What the components `names` logged, by time: behind `since`, and the last `tail` lines of it.

    Lines that a component repeats in a row are one. Output that is no event stays behind the event that it followed.
    """
    logs = [Log(folder / name) for name in names]
    try:
        return shown((line for log in logs for line in log.read()), since=since, tail=tail)
    finally:
        for log in logs:
            log.close()


def shown(found: Iterable[Line], *, since: str = "", tail: int | None = None) -> list[str]:
    """`found` for people, as `lines` has it."""
    by_time = sorted((line for line in found if line.time >= since), key=lambda line: line.time)
    runs: list[tuple[Line, list[str]]] = []
    latest: dict[str, tuple[Line, list[str]]] = {}
    for line in by_time:
        before = latest.get(line.component)
        if before is not None and before[0].meaning == line.meaning:
            before[1].append(line.time)
        else:
            runs.append(run := (line, [line.time]))
            latest[line.component] = run
    texts = [line.shown(len(times), times[-1]) for line, times in runs]
    return texts if tail is None else texts[len(texts) - min(tail, len(texts)) :]


def follow(
    folder: Path, names: Collection[str], *, since: str = "", tail: int | None = None, pause: float = _LOOK_AGAIN
) -> Iterator[str]:
    """As `lines`, and then what is logged from now on, until the folder is removed; no names: all components."""
    logs: dict[str, Log] = {}
    folds = Folds()
    is_first = True
    while folder.is_dir():
        try:
            for name in [*names] or names_in(folder):
                if name not in logs:
                    logs[name] = Log(folder / name)
        except FileNotFoundError:  # the mesh was taken down meanwhile
            break
        found = [line for log in logs.values() for line in log.read()]
        if is_first:
            yield from shown(found, since=since, tail=tail)
            is_first = False
        else:
            yield from folds.add(sorted(found, key=lambda line: line.time), time.monotonic())
        time.sleep(pause)
    yield from folds.end()
    for log in logs.values():
        log.close()


class Folds:
    """Folds repeated lines of logs that are followed: the first is shown at once, those that repeat it are counted."""

    def __init__(self) -> None:
        self._latest: dict[str, _Run] = {}

    def add(self, found: Sequence[Line], now: float) -> Iterator[str]:
        """What to show of further lines, at a monotonic time in seconds."""
        for line in found:
            run = self._latest.get(line.component)
            if run is not None and run.line.meaning == line.meaning:
                run.times, run.last = run.times + 1, line.time
                run.begun = run.begun if run.times > 1 else now
                continue
            if run is not None:
                yield from run.told()
            self._latest[line.component] = _Run(line)
            yield line.text
        for run in self._latest.values():
            if run.times and now - run.begun >= _QUIET:
                yield from run.told()

    def end(self) -> Iterator[str]:
        """What is still to be shown."""
        for run in self._latest.values():
            yield from run.told()


@dataclass
class _Run:
    line: Line
    times: int = 0
    """How often it was repeated since that was last shown."""
    last: str = ""
    begun: float = 0.0

    def told(self) -> Iterator[str]:
        """A line about the repeats, if there are any."""
        if self.times:
            again = "once more" if self.times == 1 else f"{self.times} times more"
            yield f"{self.last[11:23]}         {self.line.component:<20} repeats its last line {again}"
        self.times = 0


class Log:
    """The log of one component at `path`, which may grow and be rotated, and may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._time = ""
        self._has_begun = False

    def read(self) -> Iterator[Line]:
        """The lines since the last call."""
        if not self._has_begun:
            self._has_begun = True
            self._open(old(self._path))
            yield from self._lines(is_whole=True)
            self._open(self._path)
        elif self._file is None:
            self._open(self._path)
        yield from self._lines()
        if self._was_rotated():
            yield from self._lines(is_whole=True)
            self._open(self._path)
            yield from self._lines()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> None:
        self.close()
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - it is followed
        except FileNotFoundError:
            self._file = None

    def _was_rotated(self) -> bool:
        try:
            return self._file is not None and not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _lines(self, *, is_whole: bool = False) -> Iterator[Line]:
        """What the open file has more; the last line only if it is complete, or the file does not grow any more."""
        if self._file is None:
            return
        *complete, self._rest = (self._rest + self._file.read()).split(b"\n")
        if is_whole and self._rest:
            complete, self._rest = [*complete, self._rest], b""
        for line in complete:
            yield self._read(line)

    def _read(self, line: bytes) -> Line:
        name = self._path.name
        said = parsed(line)
        if said is None:
            text = f"{name}: {line.decode(errors='replace')}"
            return Line(self._time, name, text, text)
        self._time = str(said.pop("timestamp", self._time))
        event, level = said.pop("event"), said.pop("level", "")
        said.pop("component", None)
        values = " ".join(f"{key}={value}" for key, value in said.items())
        text = f"{self._time[11:23]} {level:<7} {name:<20} {event}  {values}".rstrip()
        lasting = {key: value for key, value in said.items() if key not in _MEASURED}
        return Line(self._time, name, text, json.dumps([event, level, lasting]))
