"""One client's connections leave room for those of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from nsm.apis.connection import Connection
from nsm.chains.core import DEFAULT_LIMITS, Call, Element, Exhausted, Handler, Key, Limits
from nsm.chains.policy import NO_TRUST, Trust

from .own_addresses import GivesAddresses

_SHARED = 128
"""Addresses that a pool has at least of which no client gets all; smaller ones are made for few."""


class LimitConnections(Element):
    """Refuse a client, by its verified identity, more connections than `limits` and the endpoint's pools allow.

    Of the pairs of addresses in the smallest pool of `elements` it gets three quarters. Where `trust` knows nobody who
    may vouch, clients that come by another component are not counted: its own limits hold for them. Raises `Exhausted`.
    """

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, trust: Trust = NO_TRUST, elements: Sequence[Element] = ()
    ) -> None:
        sizes = [each.networks.size for each in elements if isinstance(each, GivesAddresses)]
        self._most = min([limits.client_connections, *(size * 3 // 8 for size in sizes if size >= _SHARED)])
        self._trust = trust
        self._connections: Counter[str] = Counter()
        self._counted: Key[bool] = Key("counted for its client")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Count a new connection."""
        if call.peer is not None and not call.live.get(self._counted) and self._is_told_apart(call):
            self._count(call)
        return await rest.request(call)

    def _is_told_apart(self, call: Call) -> bool:
        return len(call.owner) == 1 or self._trust.knows_somebody()

    def _count(self, call: Call) -> None:
        client = call.origin
        if self._connections[client] >= self._most:
            raise Exhausted(
                f"{client} has {self._most} connections here, and the rest is for others; "
                "a larger pool and NSM_LIMITS=client_connections:.. allow more",
                limit="client_connections",
            )
        self._connections[client] += 1
        call.live.put(self._counted, True)
        call.live.on_end(partial(self._end, client))

    def _end(self, client: str) -> None:
        self._connections[client] -= 1
        if not self._connections[client]:
            del self._connections[client]
