"""The state of a mesh as one manager knows it, read without a view: for commands with `--url`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nsm.chains.core import Unavailable
from nsm.chains.transport import Pool
from nsm.view.model import Attempt, Change, Event, Snapshot, Wire
from nsm.view.source import find
from nsm.view.state import State

from .watch import Watch


class ManagerSource:
    """A `Source` that reads the monitor and the registry of one manager. All methods raise `MeshError`.

    It knows the wires that pass this manager, and no events from before it was opened.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, pool: Pool, *, timeout: float = 5.0) -> AsyncIterator[ManagerSource]:
        """The state at the manager `url`, whose first part may take `timeout` seconds.

        The identity of `pool` must be among the manager's NSM_MONITOR_VIEWERS to see wires of others. Raises
        `Unavailable` if the manager does not respond in time.
        """
        state = State()
        async with Watch(state, pool, url, {url: ""}) as watch:
            try:
                async with asyncio.timeout(timeout):
                    await watch.complete()
            except TimeoutError:
                reason = state.reason_of(url) or f"it did not report its connections within {timeout:g} s"
                raise Unavailable(f"the manager at {url} cannot be read: {reason}") from None
            yield cls(state)

    async def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        return self._state.snapshot()

    async def wires(self) -> Sequence[Wire]:
        """All wires that pass the manager, ordered by client and interface."""
        return self._state.wires()

    async def wire(self, name: str) -> Wire:
        """The wire `name`, as `find` looks it up."""
        return find(name, self._state.wires())

    async def attempts(self) -> Sequence[Attempt]:
        """Wires that were requested here and do not exist."""
        return self._state.attempts()

    async def events(self, wire: str = "") -> Sequence[Event]:
        """What occurred since the source was opened, oldest first; of one wire, if its id is given."""
        return self._state.history.events(wire)

    def changes(self, position: str = "") -> AsyncIterator[Change]:
        """Every change from now on, endlessly; it begins with a snapshot."""
        return self._state.stream.follow(position)
