"""A component that runs, and how it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .plan import Component


@dataclass
class Process:
    """A component, from before its start until after its end."""

    what: Component
    pid: int = 0
    status: int | None = None
    began: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    output: asyncio.Task[None] | None = None
    """Reads what it says; done when it has said all."""
    last: str = ""
    """The last line that it logged as a warning or an error, or that was no event at all."""
    awaited: dict[str, asyncio.Event] = field(default_factory=dict)
    """Events of its log that somebody waits for."""
    is_dismissed: bool = False
    """Its end is wanted: there is nothing to tell."""

    @property
    def name(self) -> str:
        """The component's."""
        return self.what.name

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return bool(self.pid) and self.status is None

    @property
    def state(self) -> str:
        """For people: how it is."""
        if self.status is not None:
            return f"ended with {self.status}"
        if not self.pid:
            return "not started"
        return "ready" if self.ready.is_set() else "starting"
