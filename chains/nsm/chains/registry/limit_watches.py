"""How many Finds of one peer may watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Exhausted, Found, Limits, R, RegistryCall, RegistryElement, RegistryHandler


class LimitWatches(RegistryElement[R]):
    """Refuse a watch of who has too many: each change is compared with every one of them."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.watches
        self._watches: Counter[str] = Counter()

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `Exhausted` for one too many."""
        who = call.peer.spiffe_id if call.watch and call.peer is not None else None
        if who is not None:
            self._begin(who)
        try:
            async for batch in rest.find(call):
                yield batch
        finally:
            if who is not None:
                self._end(who)

    def _begin(self, who: str) -> None:
        if self._watches[who] >= self._most:
            most = f"{self._most} watches already, as many as one may have (NSM_LIMITS=watches:..)"
            raise Exhausted(f"{who} has {most}", limit="watches")
        self._watches[who] += 1

    def _end(self, who: str) -> None:
        self._watches[who] -= 1
        if not self._watches[who]:
            del self._watches[who]
