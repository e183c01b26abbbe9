"""Limits one client's connections and calls, so that there is room for those of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from nsm.apis.connection import Connection
from nsm.chains.core import DEFAULT_LIMITS, Call, Element, Exhausted, Handler, Key, Limits, Store
from nsm.chains.policy import NO_TRUST, Trust

from .own_addresses import GivesAddresses

_SHARED = 128
"""From this number of addresses on no client gets all of a pool; smaller ones are made for few."""


class LimitConnections(Element):
    """Refuse a client, by its verified identity, more connections than `limits` and the endpoint's pools allow.

    Of the pairs of addresses in the smallest pool of `elements` it gets three quarters. If `trust` lists no component
    that may vouch, clients behind another component are not counted: its own limits apply to them. The state of a
    connection is as long as its latest request; the total of a client's is limited, too. Raises `Exhausted`.

    Only some of the calls of a counted client run at once, however many connections they are for: calls that wait for
    an unresponsive endpoint occupy capacity towards a component that others need too. Calls that this process itself
    makes for a client's connections, such as closing them, do not wait behind the client's own calls.
    """

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, trust: Trust = NO_TRUST, elements: Sequence[Element] = ()
    ) -> None:
        sizes = [each.networks.size for each in elements if isinstance(each, GivesAddresses)]
        self._most = min([limits.client_connections, *(size * 3 // 8 for size in sizes if size >= _SHARED)])
        self._trust = trust
        self._connections: Counter[str] = Counter()
        self._counted: Key[str] = Key("the client that it is counted for")
        self._bytes: Counter[str] = Counter()
        self._most_bytes = limits.client_bytes
        self._size: Key[int] = Key("bytes that are counted for the client")
        self._calls = limits.client_calls
        self._turns: dict[tuple[str, bool], _Turns] = {}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Count a new connection; continue in turn."""
        if call.peer is not None and call.live.get(self._counted) is None and self._is_told_apart(call):
            self._count(call)
        if call.size and (client := call.live.get(self._counted)) is not None:
            self._weigh(call, client)
        if (turns := self._turns_of(call)) is None:
            return await rest.request(call)
        async with turns:
            return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Continue in turn."""
        if (turns := self._turns_of(call)) is None:
            await rest.close(call)
            return
        async with turns:
            await rest.close(call)

    def _turns_of(self, call: Call) -> _Turns | None:
        """The calls of the client that the connection is counted for; its own and ours for it are counted apart."""
        if (client := call.live.get(self._counted)) is None:
            return None
        key = client, call.peer is None
        if (turns := self._turns.get(key)) is None:
            turns = self._turns[key] = _Turns(self._calls, partial(self._turns.pop, key))
        return turns

    def _is_told_apart(self, call: Call) -> bool:
        return len(call.owner) == 1 or self._trust.has_vouchers()

    def _count(self, call: Call) -> None:
        client = call.origin
        if self._connections[client] >= self._most:
            raise Exhausted(
                f"{client} has {self._most} connections here, and the rest is for others; "
                "a larger pool and NSM_LIMITS=client_connections:.. allow more",
                limit="client_connections",
                remedy="close connections of this client, or raise the limit",
            )
        self._connections[client] += 1
        call.live.put(self._counted, client)
        call.live.on_end(partial(self._end, client, call.live))

    def _weigh(self, call: Call, client: str) -> None:
        more = call.size - (call.live.get(self._size) or 0)
        if more > 0 and self._bytes[client] + more > self._most_bytes:
            raise Exhausted(
                f"the connections of {client} take {self._bytes[client]} bytes here, and this one {call.size}; "
                f"the limit is {self._most_bytes} (NSM_LIMITS=client_bytes:..)",
                limit="client_bytes",
            )
        self._bytes[client] += more
        call.live.put(self._size, call.size)

    def _end(self, client: str, store: Store) -> None:
        self._bytes[client] -= store.pop(self._size) or 0
        if not self._bytes[client]:
            del self._bytes[client]
        self._connections[client] -= 1
        if not self._connections[client]:
            del self._connections[client]


class _Turns:
    """At most so many calls at once; `idle` is called when none is left."""

    def __init__(self, most: int, idle: Callable[[], object]) -> None:
        self._places, self._idle, self._users = asyncio.Semaphore(most), idle, 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self._places.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._places.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._idle()
