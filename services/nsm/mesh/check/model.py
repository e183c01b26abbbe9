"""The findings of a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line: a machine-readable `name`, the state, what was found, and how to fix it."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Group:
    """Findings on one topic, in display order."""

    name: str
    find: Callable[[], Iterator[Finding]]


def ok(name: str, detail: str) -> Finding:
    """It works."""
    return Finding(name, State.OK, detail)


def warning(name: str, detail: str, hint: str) -> Finding:
    """Some feature does not work without it."""
    return Finding(name, State.WARNING, detail, hint)


def error(name: str, detail: str, hint: str) -> Finding:
    """Nothing works without it."""
    return Finding(name, State.ERROR, detail, hint)


def worst(findings: Sequence[Finding]) -> State:
    """The worst state of all."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.ERROR, State.WARNING) if state in states), State.OK)
