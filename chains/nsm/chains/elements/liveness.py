"""Whether packets pass on the wire of a connection: the interface between a dataplane's own check and healing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nsm.apis.connection import Connection


class Liveness(Protocol):
    """Checks wires. One that cannot be checked (no addresses, another mechanism, no rights) is None."""

    async def is_alive(self, connection: Connection) -> bool | None:
        """One check, which ends within the time limit of this object; raises nothing but cancellation."""
        ...

    def watch(self, connection: Connection, on_down: Callable[[str], None]) -> Callable[[], None]:
        """Call `on_down`, with the reason, as soon as the wire's own end goes down or is deleted; at once if it is.

        At most one call for each `watch`, always from the event loop. Call the returned function to stop.
        """
        ...
