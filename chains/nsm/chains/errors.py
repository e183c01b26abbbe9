"""What can go wrong, as one small tree of errors that travel between components.

    MeshError                 any error that the mesh itself reports
    ├── InvalidRequest        the caller sent something that can never work
    ├── NotFound              a service, an endpoint or a forwarder is not registered, or none matches
    ├── Refused               a policy refused, or a peer's identity is not valid
    │   └── CloseRefused      the caller may not close this connection
    ├── Unsupported           none of the requested mechanisms is available here
    ├── Exhausted             a pool (addresses, interface names) is empty, or a component has too much to do
    ├── Unavailable           a peer cannot be reached, or disconnected during a call
    ├── TimedOut              the deadline of the call passed
    ├── Conflict              the state of the connection does not allow this call
    └── Internal              a defect, here or at a peer

An error says *what* occurred (`detail`), in which *element* (filled in by the chain) and at which *hop* (filled in
by each server on the way back), and reads as one line at the client:
``nsc → nsmgr node-1 → forwarder: no endpoint of "icmp" matches labels {...} (discover)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

LONGEST_DETAIL = 1024
"""Characters of an error's text, whoever wrote it: it travels in a header through every component on the way back."""
_LONGEST_NAME, _MOST_HOPS = 128, 16
_LONGEST_LINE = LONGEST_DETAIL + (_MOST_HOPS + 1) * (_LONGEST_NAME + 3)

TRANSPORT = "transport"
"""The element in errors of the transport, and of peers that do not name one."""
_ARROW = " → "
_OUR_LINE = re.compile(r"(?P<hops>[^:]+): (?P<detail>.*) \((?P<element>\w+)\)")


REMEDY, TRIED = "nsm-remedy", "nsm-tried"
"""Trailers that carry an error's `remedy` and `tried`. Not upstream's."""
_LONGEST_REMEDY, _LONGEST_SENTENCE, _MOST_TRIED, _LONGEST_TRIED = 300, 300, 16, 4096


class Tried(NamedTuple):
    """What one of several candidates answered."""

    name: str
    sentence: str


class MeshError(Exception):
    """Base of everything the mesh reports; `code` is the gRPC status code that it travels as.

    `detail` is one line for a person, cut at `LONGEST_DETAIL` characters, with an escape for each that is not
    printable. `element` names the chain element that raised it, `hops` the components that it passed, outermost
    first. `limit` names the limit that was exceeded (see `Limits`): the server that answers with the error counts it.
    `retry_after` is the number of seconds after which the same call may succeed, if that is known; our channels wait
    that long and try again, as long as the deadline of the call allows it. `remedy` is what an operator can do about
    it, in a sentence; it is not part of the text. `tried` lists what each endpoint answered that was tried.
    """

    code: ClassVar[int] = 2  # UNKNOWN

    def __init__(
        self,
        detail: str,
        *,
        element: str = "",
        hops: tuple[str, ...] = (),
        limit: str = "",
        retry_after: float | None = None,
        remedy: str = "",
        tried: Iterable[Tried] = (),
    ) -> None:
        self.detail = _shown(" ".join(cut(detail, LONGEST_DETAIL).split()), LONGEST_DETAIL)
        super().__init__(self.detail)
        self.element = _shown(element, _LONGEST_NAME)
        self.hops = tuple(_shown(hop, _LONGEST_NAME) for hop in hops[:_MOST_HOPS])
        self.limit = limit
        self.retry_after = retry_after
        self.remedy = _shown(remedy, _LONGEST_REMEDY)
        self.tried = tuple(Tried(_shown(name, _LONGEST_NAME), _shown(said, _LONGEST_SENTENCE)) for name, said in tried)

    def __str__(self) -> str:
        """One line: the hops, what occurred, and the element."""
        where = f"{_ARROW.join(self.hops)}: " if self.hops else ""
        element = f" ({self.element})" if self.element else ""
        return f"{where}{self.detail}{element}"

    @property
    def code_name(self) -> str:
        """The status code as gRPC's Go library writes it, which people look for in logs: ``PermissionDenied``."""
        return _CODE_NAMES[self.code]

    def raised_in(self, element: str) -> None:
        """Note the element that raised it, unless an inner one (or another hop) has done so."""
        if not self.element and not self.hops:
            self.element = element

    def passed(self, hop: str) -> None:
        """Note that the error left the component `hop` towards its caller."""
        self.hops = (hop, *self.hops)[:_MOST_HOPS]


def cut(text: str, longest: int) -> str:
    """`text`, or its beginning and how long it is: at most about `longest` characters."""
    if len(text) <= longest:
        return text
    said = f"... ({len(text)} characters)"
    return text[: longest - len(said)] + said


def _shown(text: str, longest: int) -> str:
    """`text` as a terminal may show it: at most `longest` characters, those of escapes counted."""
    return cut(printable(cut(text, longest)), longest)


def printable(text: str) -> str:
    """`text` with an escape in the place of each character that a terminal would not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class InvalidRequest(MeshError):
    """The caller sent something that can never work: a missing id, a malformed address, a wrong path."""

    code = 3  # INVALID_ARGUMENT


class TimedOut(MeshError):
    """The deadline of the call passed."""

    code = 4  # DEADLINE_EXCEEDED


class NotFound(MeshError):
    """A service, endpoint or forwarder is not registered, or none matches."""

    code = 5  # NOT_FOUND


class Refused(MeshError):
    """A policy refused the call, or the peer's identity is not valid."""

    code = 7  # PERMISSION_DENIED


class CloseRefused(Refused):
    """The caller may not close this connection; it stays as it is."""


class Exhausted(MeshError):
    """A pool is empty, or a component has as much to do as it accepts."""

    code = 8  # RESOURCE_EXHAUSTED


class Conflict(MeshError):
    """The current state does not allow this: a name is taken, an endpoint is shutting down."""

    code = 9  # FAILED_PRECONDITION


class Unsupported(MeshError):
    """None of the requested mechanisms is available here."""

    code = 12  # UNIMPLEMENTED


class Internal(MeshError):
    """A defect: an answer that breaks the protocol, or an unexpected exception."""

    code = 13  # INTERNAL


class Unavailable(MeshError):
    """A peer cannot be reached, or disconnected during a call."""

    code = 14  # UNAVAILABLE


OK, CANCELED = "OK", "Canceled"
"""The codes of calls that succeeded, and that their caller gave up, beside those of errors."""
_CODE_NAMES = {
    2: "Unknown",
    3: "InvalidArgument",
    4: "DeadlineExceeded",
    5: "NotFound",
    7: "PermissionDenied",
    8: "ResourceExhausted",
    9: "FailedPrecondition",
    12: "Unimplemented",
    13: "Internal",
    14: "Unavailable",
}

_BY_CODE: dict[int, type[MeshError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        TimedOut,
        NotFound,
        Refused,
        Exhausted,
        Conflict,
        Unsupported,
        Internal,
        Unavailable,
    )
}


def from_status(code: int, message: str, peer: str = "the peer") -> MeshError:
    """The error that `peer` answered with: `code` is its gRPC status, `message` its text.

    Our own components write ``hop → hop: detail (element)``; texts of others stay unchanged, after the peer's name.
    """
    kind, message = _BY_CODE.get(code, MeshError), cut(message, _LONGEST_LINE)
    if (ours := _OUR_LINE.fullmatch(message)) is not None:
        return kind(ours["detail"], element=ours["element"], hops=tuple(ours["hops"].split(_ARROW)))
    return kind(f"{peer} answered: {message}" if message else f"{peer} answered with status {code} and no message")


def details_of(error: MeshError) -> list[tuple[str, str]]:
    """The trailers with what `error` carries besides its text, in ASCII; none if there is nothing, or too much."""
    found = [(REMEDY, json.dumps(error.remedy))] if error.remedy else []
    if error.tried:
        tried = json.dumps(error.tried[:_MOST_TRIED], separators=(",", ":"))
        found += [(TRIED, tried)] if len(tried) <= _LONGEST_TRIED else []
    return found


def add_details(error: MeshError, trailers: Mapping[str, str]) -> None:
    """Give `error`, which a peer answered with, what the peer's trailers add; invalid ones are ignored."""
    remedy, tried = _read(trailers.get(REMEDY)), _read(trailers.get(TRIED))
    if isinstance(remedy, str):
        error.remedy = _shown(remedy, _LONGEST_REMEDY)
    if isinstance(tried, list) and all(isinstance(each, list) and len(each) == 2 for each in tried):
        known = [(str(name), str(said)) for name, said in tried[:_MOST_TRIED]]
        error.tried = tuple(Tried(_shown(name, _LONGEST_NAME), _shown(said, _LONGEST_SENTENCE)) for name, said in known)


def _read(text: str | None) -> Any:
    if text is None or len(text) > _LONGEST_TRIED:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def was_not_reached(error: MeshError) -> bool:
    """Whether the peer of a call is not there, as opposed to an answer of it."""
    return isinstance(error, Unavailable) and error.element == TRANSPORT and not error.hops
