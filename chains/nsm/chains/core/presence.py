"""The peers that have a channel to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Presence:
    """The verified identities at the other ends of one component's open channels, and since when they are there.

    The transport reports them. Managers and forwarders that live have a channel to each component that they have
    connections with: the stream by which they watch it.
    """

    def __init__(self) -> None:
        self._channels: dict[str, tuple[int, float]] = {}
        self._when_left: list[Callable[[str], None]] = []

    def when_left(self, tell: Callable[[str], None]) -> None:
        """From now on call `tell` with the identity at the other end of each channel that is closed."""
        self._when_left.append(tell)

    def arrived(self, spiffe_id: str) -> None:
        """A channel with `spiffe_id` is open."""
        count, since = self._channels.get(spiffe_id) or (0, asyncio.get_running_loop().time())
        self._channels[spiffe_id] = count + 1, since

    def left(self, spiffe_id: str) -> None:
        """A channel with `spiffe_id` was closed."""
        count, since = self._channels[spiffe_id]
        if count > 1:
            self._channels[spiffe_id] = count - 1, since
        else:
            del self._channels[spiffe_id]
        for tell in self._when_left:
            tell(spiffe_id)

    def since(self, spiffe_id: str) -> float | None:
        """Loop time since when it has been reachable without a break; None if it is not."""
        found = self._channels.get(spiffe_id)
        return None if found is None else found[1]
