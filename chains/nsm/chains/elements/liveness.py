"""Whether packets pass on the wire of a connection: what a dataplane's own check has to offer to healing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nsm.apis.connection import Connection


class Liveness(Protocol):
    """Checks of wires. What cannot be checked (no addresses, another mechanism, no rights) counts as alive."""

    async def is_alive(self, connection: Connection) -> bool:
        """One check, which ends within the time that this object was made with; raises nothing but cancellation."""
        ...

    def watch(self, connection: Connection, on_down: Callable[[str], None]) -> Callable[[], None]:
        """Call `on_down`, with why, as soon as the wire's own end goes down or is deleted; at once if it is so already.

        At most one call for each `watch`, always from the event loop. It ends with a call of what is returned.
        """
        ...
