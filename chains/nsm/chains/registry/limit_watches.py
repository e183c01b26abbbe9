"""Limits the number of watches per peer, and the size of their queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

from nsm.apis import codec
from nsm.chains.core import (
    Exhausted,
    Found,
    InvalidRequest,
    Limits,
    R,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
)


class LimitWatches(RegistryElement[R]):
    """Refuse a watch if the peer has too many, or if its query is too long: every watch is compared at each change."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._longest = limits.watches, limits.watch
        self._watches: Counter[str] = Counter()

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `Exhausted` for too many watches, `InvalidRequest` for a query that is too long."""
        who = call.peer.spiffe_id if call.watch and call.peer is not None else None
        if who is not None:
            self._check(len(codec.encode(call.record)))
            self._begin(who)
        try:
            async for batch in rest.find(call):
                yield batch
        finally:
            if who is not None:
                self._end(who)

    def _check(self, size: int) -> None:
        if size > self._longest:
            most = f"at most {self._longest} are allowed (NSM_LIMITS=watch:..)"
            raise InvalidRequest(f"the query of the watch has {size} bytes; {most}", limit="watch")

    def _begin(self, who: str) -> None:
        if self._watches[who] >= self._most:
            most = f"{self._most} watches, the most that are allowed (NSM_LIMITS=watches:..)"
            raise Exhausted(f"{who} already has {most}", limit="watches")
        self._watches[who] += 1

    def _end(self, who: str) -> None:
        self._watches[who] -= 1
        if not self._watches[who]:
            del self._watches[who]
