"""Why a connection is not well, and what was tried for one that does not exist: text in the metrics of a path segment.

Monitors report both. The component where something went wrong puts a `Cause` into its own segment of the connection
that it reports, and those before it pass that on. It is gone with the next report without one. An `Attempt` is reported
as a connection that is down, whose segment has the figures besides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_CAUSE = "nsm_cause"
_FIELDS = ("code", "element", "component", "remedy", "at", "state")
_HEALING = "healing"
_TRIES, _FIRST, _LAST, _TRIED = "nsm_tries", "nsm_first", "nsm_last", "nsm_tried_"
LONGEST, MOST_CANDIDATES = 500, 16
"""Characters of a sentence, and candidates of an attempt."""

PEER_LOST, PEER_CLOSED = "PeerLost", "PeerClosed"
"""The next component does not respond, or has closed the connection."""
NAMESPACE_GONE, REPAIRED, CHANGED = "NamespaceGone", "Repaired", "Changed"
"""A workload's network namespace has ended; a wire that others changed was repaired, or was not."""
BEING_REPAIRED = "BeingRepaired"
"""The forwarder repairs the wire, and will report when it has: clients wait for that."""
REFRESH_NEEDED, NOT_SELECTED = "RefreshNeeded", "NotSelected"
"""The client has to request again; the endpoint is no longer selected by the network service."""
ORPHANED, EXPIRED = "Orphaned", "Expired"
"""The component before this one cannot be reached; its token has expired."""
SETUP_MS = "nsm_setup_ms"
"""The metric of a path segment with the time that its component and those behind it took to make the connection."""
HEALING = "Healing"
"""The client restores the connection."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What went wrong, in a sentence, and what an operator can do about it."""

    code: str
    """What kind: one of the names in this module, or the name of a gRPC status such as ``NotFound``."""
    sentence: str
    remedy: str = ""
    element: str = ""
    """The chain element that found it."""
    component: str = ""
    """The name of the component's path segment, if it is not the one that carries this."""
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    is_healing: bool = False
    """Whether a component is about to repair it."""

    def metrics(self) -> dict[str, str]:
        """The entries for the metrics of a path segment."""
        state = _HEALING if self.is_healing else ""
        texts = (self.code, self.element, self.component, self.remedy, stamp(self.at), state)
        named = {f"{_CAUSE}_{name}": text for name, text in zip(_FIELDS, texts, strict=True) if text}
        return {_CAUSE: _cut(self.sentence), **named}


def cause_in(metrics: Mapping[str, str]) -> Cause | None:
    """The cause that a path segment carries."""
    if not metrics or (sentence := metrics.get(_CAUSE)) is None:
        return None
    code, element, component, remedy, at, state = (metrics.get(f"{_CAUSE}_{name}", "") for name in _FIELDS)
    return Cause(code, sentence, remedy, element, component, moment(at), state == _HEALING)


def remove_cause(metrics: MutableMapping[str, str]) -> None:
    """Remove the cause that a path segment carries, if any."""
    if _CAUSE in metrics:
        for name in (_CAUSE, *(f"{_CAUSE}_{name}" for name in _FIELDS)):
            metrics.pop(name, None)


@dataclass(slots=True)
class Candidate:
    """One of those that may provide a service: how often it was tried, and what it answered last, and when."""

    name: str
    sentence: str
    tries: int = 1
    at: float = field(default_factory=time.time)


@dataclass(slots=True)
class Attempt:
    """What was tried for a connection that does not exist, by one client."""

    tries: int = 0
    first: float = field(default_factory=time.time)
    last: float = 0.0
    candidates: dict[str, Candidate] = field(default_factory=dict)
    """By name, the one that answered last at the end."""

    def metrics(self) -> dict[str, str]:
        """The entries for the metrics of a path segment."""
        told = {_TRIES: str(self.tries), _FIRST: stamp(self.first), _LAST: stamp(self.last)}
        for place, each in enumerate([*self.candidates.values()][-MOST_CANDIDATES:]):
            told[f"{_TRIED}{place}"] = json.dumps([each.name, each.tries, stamp(each.at), _cut(each.sentence, 300)])
        return told


def attempt_in(metrics: Mapping[str, str]) -> Attempt | None:
    """The attempt that a path segment carries; without it, the connection exists. Invalid candidates are left out."""
    if not metrics or _TRIES not in metrics:
        return None
    tries = metrics[_TRIES]
    attempt = Attempt(_number(tries), moment(metrics.get(_FIRST, "")), moment(metrics.get(_LAST, "")))
    for place in range(MOST_CANDIDATES):
        if (text := metrics.get(f"{_TRIED}{place}")) is not None and (each := _candidate(text)) is not None:
            attempt.candidates[each.name] = each
    return attempt


def stamp(seconds: float) -> str:
    """A time as RFC 3339, in milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 if it is invalid."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _candidate(text: str) -> Candidate | None:
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, list) or [type(each) for each in said] != [str, int, str, str]:
        return None
    return Candidate(said[0], said[3], said[1], moment(said[2]))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 2] + ".."
