"""A component's process and its state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from .plan import Component


@dataclass
class Process:
    """A component's process, before, during and after its run."""

    what: Component
    pid: int = 0
    status: int | None = None
    began: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    output: asyncio.Task[None] | None = None
    """The task that reads its output; done at the end of the output."""
    last: str = ""
    """The last warning, error, or line that was not an event."""
    said: dict[str, Any] = field(default_factory=dict)
    """What it logged when it was ready."""
    awaited: dict[str, asyncio.Event] = field(default_factory=dict)
    """Events of its log that are awaited."""

    @property
    def name(self) -> str:
        """The component's."""
        return self.what.name

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return bool(self.pid) and self.status is None

    @property
    def state(self) -> str:
        """The state, for people."""
        if self.status is not None:
            return f"ended with {self.status}"
        if not self.pid:
            return "not started"
        return "ready" if self.ready.is_set() else "starting"
