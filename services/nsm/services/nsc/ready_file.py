"""A file that exists while all wires are up, for readers that can only look at files: a probe in a pod.

As long as it does not exist, a file with the same name and ``.why`` appended exists: one line about what it waits for.
A probe whose program prints that line shows it in the events of the pod.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, InvalidRequest, MeshError
from nsm.chains.elements.refresh import means_gone
from nsm.chains.logs import log

WHY = ".why"
_LONGEST = 1024
"""Bytes of a line: the kubelet cuts longer ones."""


class ReadyFile:
    """Exists while nothing is missing; an empty path means no file.

    `wires` are the ids of the wires that have to be up. Entering removes the file of a client that was killed. Raises
    `InvalidRequest` if it cannot be written.
    """

    def __init__(self, path: str, wires: Iterable[str] = ()) -> None:
        self._path = Path(path) if path else None
        self._why = Path(path + WHY)
        self._missing = dict.fromkeys(wires, "")
        """What is missing, and why as far as that is known; the client itself until `begin`."""
        self._has_begun = False

    def __enter__(self) -> ReadyFile:
        with self._told():
            if self._path is not None:
                self._path.parent.stat()
                self._remove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._remove()

    def begin(self) -> None:
        """Everything required has been there once."""
        self._has_begun = True
        with self._told():
            self._write()

    def has(self, what: str) -> None:
        """`what` is there, or back."""
        if self._missing.pop(what, None) is not None:
            self._show()

    def lacks(self, what: str, why: str) -> None:
        """`what` is missing, for the given reason."""
        if self._missing.get(what) != why:
            self._missing[what] = why
            self._show()

    def tell(self, what: str, why: str) -> None:
        """`what` is missing for the given reason, or there if none is given."""
        if why:
            self.lacks(what, why)
        else:
            self.has(what)

    def still_lacks(self, what: str, why: str) -> None:
        """If `what` is missing, this is the reason now."""
        if what in self._missing:
            self.lacks(what, why)

    def _show(self) -> None:
        """Later write errors are logged, and do not end the client."""
        try:
            self._write()
        except OSError as error:
            log.warning("cannot write the ready file", file=str(self._path), error=error.strerror)

    def _write(self) -> None:
        if self._path is None:
            return
        if not self._missing and self._has_begun:
            self._path.touch()
            self._why.unlink(missing_ok=True)
            return
        _write_line(self._why, "; ".join(dict.fromkeys(filter(None, self._missing.values()))))
        self._path.unlink(missing_ok=True)

    def _remove(self) -> None:
        for path in filter(None, (self._path, self._why)):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidRequest(f"NSM_READY_FILE={str(self._path)!r} cannot be written: {error.strerror}") from None


def waits(path: str, why: str) -> None:
    """Write why the client with the ready file at `path` has not begun yet; write errors are reported later."""
    if path:
        with contextlib.suppress(OSError):
            _write_line(Path(path + WHY), why)


def _write_line(path: Path, line: str) -> None:
    """Replace the content of `path` by one line, atomically; remove the file if the line is empty."""
    if not line:
        path.unlink(missing_ok=True)
        return
    text = " ".join(line.split()).encode(errors="replace")[:_LONGEST].decode(errors="ignore")
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{text}\n")
    fresh.replace(path)


class TellReady(Element):
    """Keep a `ReadyFile` in step with the wires.

    A wire is missing from the first error that its endpoint or its forwarder is not there, and while it is closed for
    reselection, until it is back. A refresh that fails because a component on the path restarts does not count: packets
    pass the wire all the while.
    """

    def __init__(self, file: ReadyFile) -> None:
        self._file = file

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Record a success, and what a failure means."""
        wire, service = call.live.connection_id, call.connection.network_service
        try:
            connection = await rest.request(call)
        except MeshError as error:
            (self._file.lacks if means_gone(error) else self._file.still_lacks)(wire, _line(service, error))
            raise
        self._file.has(wire)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """It is missing from now on."""
        self._file.lacks(call.live.connection_id, f"the wire to {call.connection.network_service!r} is closed")
        await rest.close(call)


def _line(service: str, error: MeshError) -> str:
    return f"no wire to {service!r}: {error}"
