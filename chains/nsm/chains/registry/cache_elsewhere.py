"""Answers Find for recently requested services of other domains from watches, one for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Found, Kind, Limits, MeshError, R, RegistryCall, RegistryElement, RegistryHandler, Tasks
from nsm.chains.logs import log
from nsm.chains.model.domains import is_elsewhere

from .follow import Follow

MOST_SERVICES = 64
"""The number of watched services; the least recently requested one is dropped for a new one."""
IDLE = 300.0
"""Seconds without a request after which a service is no longer watched if its watch breaks."""
_LIMITS = Limits()


@dataclass(slots=True)
class _Followed(Generic[R]):
    """A service, its records, and when it was requested last."""

    follow: Follow[R]
    task: asyncio.Task[None]
    used: float


class CacheElsewhere(RegistryElement[R]):
    """Cache the records of each recently requested service of another domain, by a watch for each.

    A query crosses several components to another registry; a cached one none. Watches are served from here too, so that
    a whole domain needs one watch for a service. A Find without a match is passed on. While a watch is broken, every
    Find is passed on, and watches that were served from here end.
    """

    def __init__(self, kind: Kind[R], *, limits: Limits = _LIMITS) -> None:
        self._kind, self._limits = kind, limits
        self._followed: dict[str, _Followed[R]] = {}
        """By service, the most recently requested one last."""
        self._tasks = Tasks(f"cache of other domains' {kind.noun}s")

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """From the cache if it has a match."""
        service = _service_of(call.record) if is_elsewhere(call.record) else ""
        for known in self._known(call, service):
            if call.watch:
                async for batch in known.records.watch(call.record):
                    yield batch
                return
            if records := known.records.matching(call.record):
                yield [Found(record) for record in records]
                return
        if service and call.watch:
            self._follow(service, rest)
        found = False
        async for batch in rest.find(call):
            found = found or bool(batch)
            yield batch
        if service and found:
            self._follow(service, rest)

    async def aclose(self) -> None:
        """Stop watching."""
        await self._tasks.aclose()
        self._followed.clear()

    def _known(self, call: RegistryCall[R], service: str) -> list[Follow[R]]:
        """What may answer the query: the service's records, or, for an endpoint's name alone, those of all."""
        if service:
            followed = [self._followed[service]] if service in self._followed else []
        else:
            followed = [*self._followed.values()] if is_elsewhere(call.record) and not call.watch else []
        for each in followed:
            each.used = asyncio.get_running_loop().time()
        return [each.follow for each in followed if each.follow.is_complete]

    def _follow(self, service: str, registry: RegistryHandler[R]) -> None:
        if service in self._followed:
            self._followed[service] = self._followed.pop(service)  # now the last one
            return
        while len(self._followed) >= MOST_SERVICES:
            self._drop(next(iter(self._followed)))
        follow: Follow[R] = Follow(_query_of(self._kind, service), limits=self._limits)
        task = self._tasks.spawn(
            follow.run(registry, lambda error, pause: self._broke(service, error, pause)), name=f"watch of {service}"
        )
        self._followed[service] = _Followed(follow, task, asyncio.get_running_loop().time())

    def _broke(self, service: str, error: MeshError, pause: float) -> None:
        log.debug(
            "the watch on a service of another domain failed", service=service, reason=str(error), again_in_s=pause
        )
        followed = self._followed.get(service)
        if followed is not None and asyncio.get_running_loop().time() - followed.used > IDLE:
            self._drop(service)

    def _drop(self, service: str) -> None:
        followed = self._followed.pop(service)
        followed.follow.records.end("the service is no longer watched")
        followed.task.cancel()


def _service_of(query: NetworkService | NetworkServiceEndpoint) -> str:
    """The one service that a query asks for; empty if there is none, or several."""
    if isinstance(query, NetworkService):
        return query.name
    return query.network_service_names[0] if len(query.network_service_names) == 1 else ""


def _query_of(kind: Kind[R], service: str) -> R:
    named = {"network_service_names": [service]} if kind.record is NetworkServiceEndpoint else {"name": service}
    return kind.record(**named)
