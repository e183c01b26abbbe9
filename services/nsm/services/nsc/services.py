"""The services that a client requests: listed once, or in a file that may change while the client runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence

from nsm.apis.mechanisms import KERNEL, MEMIF, VFIO
from nsm.chains.config import items
from nsm.chains.config.watched_file import Watch
from nsm.chains.logs import log
from nsm.chains.model.nsurl import NsUrl, check_interfaces, check_mechanisms, parse_strict_nsurl

LOOK = 0.5
"""Seconds between two checks of the file, each of which is a `stat`."""
_COMMENT = re.compile(r"(?:^|\s)#")
_LARGEST = 1 << 20
_MISSING = "there is no such file"
_EMPTY = "it is empty; write a line that begins with # to have no wires"
_BEFORE = _MISSING, _EMPTY
"""The state of a file that has not been written yet."""


class Services:
    """The current services of a client: those that were `listed`, or those in the file at `path`.

    A file has a URL a line, or several that commas separate, and comments behind a ``#``. As long as it cannot be used,
    which is one warning, the previous services apply: at first those that were `listed`, if any; else `tell` receives
    the reason why there are none yet. A file cannot be used if it does not exist, cannot be read, has an invalid line,
    or is empty, as files are while they are written; a file with comments alone requests no wires.
    """

    def __init__(self, listed: Sequence[NsUrl], path: str = "", tell: Callable[[str], None] = lambda _: None) -> None:
        self._listed, self._path, self._tell = listed, path, tell
        self._watch, self._fault = Watch(path), ""

    async def lists(self) -> AsyncIterator[Sequence[NsUrl]]:
        """The services to request, whenever they change; the last ones if no file is followed."""
        if not self._path:
            if not self._listed:
                log.warning("there is nothing to do: NSM_NETWORK_SERVICES is empty")
            yield self._listed
            return
        wanted = self._changed(_BEFORE if self._listed else ())
        if wanted is None and self._listed:
            log.info("NSM_NETWORK_SERVICES applies until the file of services can be used", file=self._path)
            yield self._listed
        elif wanted is None:
            self._tell(f"NSM_NETWORK_SERVICES_FILE={self._path!r}: {self._fault}")
        while True:
            if wanted is not None:
                self._tell("")
                yield wanted
            await asyncio.sleep(LOOK)
            wanted = self._changed()

    def _changed(self, expected: Container[str] = ()) -> Sequence[NsUrl] | None:
        """The services in the file; None if it is unchanged, or cannot be used, a warning if that is unexpected."""
        if not self._watch.has_changed():
            return None
        found, fault = _read(self._path)
        if fault and fault != self._fault and fault not in expected:
            log.warning("the file of services cannot be used; wires stay unchanged", file=self._path, error=fault)
        if self._fault and not fault:
            log.info("the file of services can be used", file=self._path)
        self._fault = fault
        return found


def _read(path: str) -> tuple[Sequence[NsUrl] | None, str]:
    """The services in the file, or None and why it cannot be used."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(_LARGEST + 1)), ""
    except FileNotFoundError:
        return None, _MISSING
    except UnicodeDecodeError:
        return None, "it is not UTF-8 text"
    except OSError as error:
        return None, error.strerror or str(error)
    except ValueError as error:
        return None, str(error)


def parse(text: str) -> tuple[NsUrl, ...]:
    """The URLs in `text`, in their order. Raises ValueError that names the line and what is wrong with it."""
    if len(text) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} characters")
    if not text.strip():
        raise ValueError(_EMPTY)
    found: list[NsUrl] = []
    lines: dict[str, int] = {}
    for number, url in _urls(text):
        try:
            wanted = parse_strict_nsurl(url)
            check_mechanisms([wanted], (KERNEL, MEMIF, VFIO))
            check_interfaces([wanted])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if (before := lines.get(wanted.interface)) is not None:
            raise ValueError(
                f"line {number}: interface {wanted.interface!r} is requested twice, first in line {before}"
            )
        if wanted.interface:
            lines[wanted.interface] = number
        found.append(wanted)
    return tuple(found)


def _urls(text: str) -> Iterator[tuple[int, str]]:
    """Each URL with the number of its line."""
    for number, line in enumerate(text.split("\n"), start=1):
        for url in items(_COMMENT.split(line, maxsplit=1)[0]):
            yield number, url
