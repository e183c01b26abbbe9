"""A file that says that all wires are up, to whoever can look at it and cannot ask: a probe in a pod.

Beside it, as long as it is not there, is one with the same name and ``.why`` behind it: a line that says what it waits
for. That is what a probe shows whose program prints it, and so what the events of a pod say.
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
    """Is there while nothing is in the way; an empty path is no file.

    `wires` are the ids of those that have to be up. What a client that was killed left is removed on entering. Raises
    `InvalidRequest` if it cannot be written.
    """

    def __init__(self, path: str, wires: Iterable[str] = ()) -> None:
        self._path = Path(path) if path else None
        self._why = Path(path + WHY)
        self._missing = dict.fromkeys(wires, "")
        """What is in the way, and why as far as that is known; the client itself until `begin`."""
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
        """All that has to be there has been there once."""
        self._has_begun = True
        with self._told():
            self._write()

    def has(self, what: str) -> None:
        """`what` is there, or back."""
        if self._missing.pop(what, None) is not None:
            self._show()

    def lacks(self, what: str, why: str) -> None:
        """`what` is away, for the reason that is given."""
        if self._missing.get(what) != why:
            self._missing[what] = why
            self._show()

    def tell(self, what: str, why: str) -> None:
        """`what` is away for the reason that is given, or there if none is."""
        if why:
            self.lacks(what, why)
        else:
            self.has(what)

    def still_lacks(self, what: str, why: str) -> None:
        """If `what` is away that is why now."""
        if what in self._missing:
            self.lacks(what, why)

    def _show(self) -> None:
        """What cannot be written later on is told, and does not end the client."""
        try:
            self._write()
        except OSError as error:
            log.warning("the ready file cannot be written", file=str(self._path), error=error.strerror)

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
    """Say why the client with the ready file at `path` has not begun yet; what cannot be written is told later."""
    if path:
        with contextlib.suppress(OSError):
            _write_line(Path(path + WHY), why)


def _write_line(path: Path, line: str) -> None:
    """Have `path` hold one line at once, whole; none if it is empty."""
    if not line:
        path.unlink(missing_ok=True)
        return
    text = " ".join(line.split()).encode(errors="replace")[:_LONGEST].decode(errors="ignore")
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"{text}\n")
    fresh.replace(path)


class TellReady(Element):
    """Keep a `ReadyFile` in step with the wires.

    A wire is away from the first answer that its endpoint or its forwarder is not there, and while it is closed to be
    chosen anew, until there is one again. A refresh that fails because somebody on the way starts again says nothing of
    the wire, which packets pass all the while.
    """

    def __init__(self, file: ReadyFile) -> None:
        self._file = file

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Note a success, and what a failure means."""
        wire, service = call.live.connection_id, call.connection.network_service
        try:
            connection = await rest.request(call)
        except MeshError as error:
            (self._file.lacks if means_gone(error) else self._file.still_lacks)(wire, _line(service, error))
            raise
        self._file.has(wire)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """It is away from now on."""
        self._file.lacks(call.live.connection_id, f"the wire to {call.connection.network_service!r} is closed")
        await rest.close(call)


def _line(service: str, error: MeshError) -> str:
    return f"no wire to {service!r}: {error}"
