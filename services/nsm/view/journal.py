"""Where everything that changes is written down: in the stream of changes, and in the history of events."""

from __future__ import annotations

from typing import Any

from .history import History
from .model import Cause, Change, ChangeKind, EventKind
from .stream import Stream


class Journal:
    """Publishes changes to a stream, and events to both."""

    def __init__(self, stream: Stream, history: History) -> None:
        self._stream, self._history = stream, history

    def publish(self, kind: ChangeKind, subject: str, **what: Any) -> None:
        """A change of `subject`; `what` is the field of `Change` that it fills in."""
        self._stream.publish(Change(kind=kind, subject=subject, **what))

    def note(
        self, kind: EventKind, sentence: str, *, wire: str = "", component: str = "", cause: Cause | None = None
    ) -> None:
        """An event."""
        event = self._history.add(kind, sentence, wire=wire, component=component, cause=cause)
        self.publish(ChangeKind.EVENT, wire or component, event=event)
