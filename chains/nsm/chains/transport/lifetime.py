"""Ends a connection no later than the identities that it was made with."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from nsm.chains.core import MeshError, Peer
from nsm.chains.identity import Identity, Svid, trust_domain_of

GRACE = 3.0
"""Seconds that a peer has to end its calls when its authority is gone."""
_LONGEST_WAIT = 3600.0
"""Seconds between looks at the machine's clock, which may be set meanwhile."""


class Lifetime:
    """Ends one connection when a certificate of either side expires, or when the peer's authority is no longer trusted.

    `leave` is called when an authority is removed, to start nothing new; `end` when it is over, with the reason.
    """

    def __init__(
        self,
        identity: Identity,
        connection: ssl.SSLObject,
        peer: Peer,
        *,
        leave: Callable[[], None],
        end: Callable[[str], None],
    ) -> None:
        self._identity, self._connection, self._peer = identity, connection, peer
        self._leave, self._end = leave, end
        self._domain = trust_domain_of(peer.spiffe_id)
        self._bundle = identity.bundles.get(self._domain)
        self._loop = asyncio.get_running_loop()
        self._cut: asyncio.TimerHandle | None = None
        self._ends, self._why = peer.certificate.not_valid_after_utc.timestamp(), f"the SVID of {peer.spiffe_id}"
        if isinstance(peer.seen, Svid) and peer.seen.expires < self._ends:
            self._ends, self._why = peer.seen.expires, "the SVID that it was shown"
        identity.watchers.add(self._renewed)
        self._wait()

    def close(self) -> None:
        """The connection ended."""
        self._identity.watchers.discard(self._renewed)
        self._timer.cancel()
        if self._cut is not None:
            self._cut.cancel()

    def _wait(self) -> None:
        delay = min(max(self._ends - time.time(), 0.0), _LONGEST_WAIT)
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        if time.time() < self._ends:
            self._wait()
        else:
            self._end(f"{self._why} has expired")

    def _renewed(self) -> None:
        """Verify the chain that the peer showed again, if the authorities of its domain have changed."""
        bundle = self._identity.bundles.get(self._domain)
        if bundle is self._bundle or (bundle is not None and self._bundle is not None and [*bundle] == [*self._bundle]):
            return
        try:
            self._identity.verify(self._connection)
        except MeshError as error:
            self._give_notice(str(error))
        else:
            self._bundle = bundle

    def _give_notice(self, reason: str) -> None:
        if self._cut is None:
            self._leave()
            self._cut = self._loop.call_later(GRACE, self._end, reason)
