"""How many Finds of one peer may watch, and how much each of them may ask for."""

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
    """Refuse a watch of who has too many, or a long one: each change is compared with every one of them, at once."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._longest = limits.watches, limits.watch
        self._watches: Counter[str] = Counter()

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `Exhausted` for one too many, `InvalidRequest` for one that is too long."""
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
            most = f"at most {self._longest} will do (NSM_LIMITS=watch:..)"
            raise InvalidRequest(f"what the watch asks for has {size} bytes; {most}", limit="watch")

    def _begin(self, who: str) -> None:
        if self._watches[who] >= self._most:
            most = f"{self._most} watches already, as many as one may have (NSM_LIMITS=watches:..)"
            raise Exhausted(f"{who} has {most}", limit="watches")
        self._watches[who] += 1

    def _end(self, who: str) -> None:
        self._watches[who] -= 1
        if not self._watches[who]:
            del self._watches[who]
