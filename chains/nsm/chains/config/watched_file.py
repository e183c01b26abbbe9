"""A YAML file whose content may change while the component runs.

The file is checked whenever its value is read: that costs one `stat` (2 µs), needs no task and no descriptor,
and misses no change, whether the file is written in place, replaced, or a symbolic link that is switched, as
Kubernetes does. inotify would add only a wake-up between reads, which is not needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from nsm.chains.logs import log
from nsm.chains.reading import read_yaml

T = TypeVar("T")

_SETTLED = 0.1
"""Seconds after a change until the file's time stamps reveal another one: clocks of file systems are coarse."""

_Stamp = tuple[int, ...]
_NEVER: _Stamp = ()


class Watch:
    """Whether a file has changed since the last check; true at the first check."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: _Stamp | None = _NEVER

    def has_changed(self) -> bool:
        """True also if it changed so recently that a further change would not show."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp if self._is_settled(stamp) else _NEVER
        return True

    def _stamp(self) -> _Stamp | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _is_settled(self, stamp: _Stamp | None) -> bool:
        return stamp is None or time.time() - max(stamp[3:]) / 1e9 > _SETTLED


class PartlyRead(ValueError, Generic[T]):
    """A part of a document cannot be used; `value` is made from the rest."""

    def __init__(self, fault: str, value: T) -> None:
        super().__init__(fault)
        self.value = value


class WatchedFile(Generic[T]):
    """The value of a file, read again when it has changed.

    `parse` makes the value from the document; it raises ValueError with what is wrong. A missing file is like an empty
    one, None; that is logged as a warning if its path is not the `usual` one. Content that cannot be used is logged as
    a warning, once, and the last good value stays in force.

    For a document that can be used in part, `parse` raises `PartlyRead`, and `joined` combines the last value with what
    can be read. With `whole`, a file that is empty or does not end with the end of a line counts as half written, and
    cannot be used: a program that writes it in place may be in the middle of that.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[Any], T],
        *,
        usual: str | None = None,
        joined: Callable[[T, T], T] | None = None,
        whole: bool = False,
    ) -> None:
        self.path = path
        self._parse, self._value = parse, parse(None)
        self._joined, self._whole = joined, whole
        self._watch = Watch(path)
        self._refused = ""
        if usual not in (None, path) and not os.path.exists(path):
            log.warning("the configuration file does not exist yet", path=path)

    def value(self) -> T:
        """The current value."""
        if self._watch.has_changed():
            self._read()
        return self._value

    def _read(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as file:
                self._use(file.read())
        except FileNotFoundError:
            self._change(self._parse(None))
        except (OSError, UnicodeDecodeError) as error:
            self._refuse(str(error))

    def _use(self, text: str) -> None:
        try:
            if self._whole and not text.endswith("\n"):
                raise ValueError("it is half written: the last line has no end")
            self._change(self._parse(read_yaml(text)))
        except PartlyRead as partly:
            assert self._joined is not None
            self._value = self._joined(self._value, partly.value)
            self._refuse(str(partly), "a part of the configuration file cannot be used; the rest is in force")
        except ValueError as error:
            self._refuse(str(error))

    def _change(self, value: T) -> None:
        if value != self._value:
            log.info("configuration file read", path=self.path)
        self._value, self._refused = value, ""

    def _refuse(self, error: str, what: str = "configuration file cannot be used; the last good one stays") -> None:
        if error != self._refused:
            log.warning(what, path=self.path, error=error)
        self._refused = error
