"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How something is: fine, worth a look, or in the way of everything."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line: what it is about (`name`, for programs), how it is, what was seen, and how to mend it."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Group:
    """Findings about one thing, in the order in which they are shown."""

    name: str
    find: Callable[[], Iterator[Finding]]


def ok(name: str, detail: str) -> Finding:
    """It works."""
    return Finding(name, State.OK, detail)


def warning(name: str, detail: str, hint: str) -> Finding:
    """Something does not work without it."""
    return Finding(name, State.WARNING, detail, hint)


def error(name: str, detail: str, hint: str) -> Finding:
    """Nothing works without it."""
    return Finding(name, State.ERROR, detail, hint)


def worst(findings: Sequence[Finding]) -> State:
    """The worst state of all."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.ERROR, State.WARNING) if state in states), State.OK)
