"""What changes of a wire are called in its history."""

from __future__ import annotations

from .model import EventKind, Wire, WireState
from .source import name_of


def told(former: Wire | None, wire: Wire) -> tuple[EventKind, str] | None:
    """The event that a change from `former` to `wire` is, with its sentence; None if it is none.

    That a manager does not respond is an event of the manager, not of each of its wires.
    """
    name = name_of(wire)
    if former is None:
        return _appeared(wire, name)
    if wire.state is WireState.UP and former.endpoint and wire.endpoint != former.endpoint:
        return EventKind.WIRE_MOVED, f"{name} moved from {former.endpoint} to {wire.endpoint}{_way(wire)}"
    if wire.state is former.state or (
        WireState.UNHEARD in (wire.state, former.state) and wire.state is not WireState.DOWN
    ):
        return None
    if wire.state is WireState.UP:
        return EventKind.WIRE_HEALED, f"{name} is up again{_after(former, wire)}"
    because = f": {wire.cause.sentence}" if wire.cause is not None else ""
    if wire.state is WireState.HEALING:
        return EventKind.WIRE_HEALING, f"{name} is being healed{because}"
    return EventKind.WIRE_DOWN, f"{name} is down{because}"


def told_closed(wire: Wire) -> str:
    """The sentence for a wire that is closed."""
    return f"{name_of(wire)} to {wire.endpoint or wire.service} is closed"


def _appeared(wire: Wire, name: str) -> tuple[EventKind, str] | None:
    to = f"to {wire.service} at {wire.endpoint}" if wire.endpoint else f"to {wire.service}"
    if wire.state is WireState.UP:
        return EventKind.WIRE_UP, f"{name} is up {to}{_way(wire)}"
    because = f": {wire.cause.sentence}" if wire.cause is not None else ""
    return EventKind.WIRE_DOWN, f"{name} {to} is down{because}"


def _way(wire: Wire) -> str:
    return f" over {', '.join(wire.way)}" if wire.way else ""


def _after(former: Wire, wire: Wire) -> str:
    if former.since is None or wire.since is None:
        return ""
    return f" after {max(0.0, (wire.since - former.since).total_seconds()):.1f} s"
