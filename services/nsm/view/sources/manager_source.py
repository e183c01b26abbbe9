"""The state of a mesh as one manager knows it, read without a view: for commands with `--url`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nsm.chains.transport import Pool
from nsm.view.model import Attempt, Change, Event, Snapshot, Wire


class ManagerSource:
    """A `Source` that reads the monitor and the registry of one manager. All methods raise `MeshError`.

    It knows the wires that pass this manager, and no events from before it was opened.
    """

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, pool: Pool, *, timeout: float = 5.0) -> AsyncIterator[ManagerSource]:
        """The state at the manager `url`, whose first part may take `timeout` seconds.

        The identity of `pool` must be among the manager's NSM_MONITOR_VIEWERS to see wires of others.
        """
        yield cls()

    async def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        raise NotImplementedError

    async def wires(self) -> Sequence[Wire]:
        """All wires that pass the manager, ordered by client and interface."""
        raise NotImplementedError

    async def wire(self, name: str) -> Wire:
        """The wire `name`, as `find` looks it up."""
        raise NotImplementedError

    async def attempts(self) -> Sequence[Attempt]:
        """Wires that were requested here and do not exist."""
        raise NotImplementedError

    async def events(self, wire: str = "") -> Sequence[Event]:
        """What occurred since the source was opened, oldest first; of one wire, if its id is given."""
        raise NotImplementedError

    def changes(self, position: str = "") -> AsyncIterator[Change]:
        """Every change from now on, endlessly; it begins with a snapshot."""
        raise NotImplementedError
