"""Publishes a node's endpoints under the manager's URL, and finds them under their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    Found,
    InvalidRequest,
    Key,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    TimedOut,
    Unavailable,
)
from nsm.chains.model.matching import endpoint_matches

Endpoint = NetworkServiceEndpoint


class LocalBypass(RegistryElement[NetworkServiceEndpoint]):
    """Publish local endpoints under the manager's `url`, and find them under their own.

    An endpoint that is registered under the manager's URL but not known here is a leftover from before a restart and is
    not returned. Nor is a local endpoint for which the registry lists other services than it registered here, or a
    remote endpoint that is not on TCP: no component of this node has checked those.

    While the registry is unreachable, endpoints of this node are returned as they registered last, even if that was
    not passed on.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._own: dict[str, _Own] = {}
        self._known: Key[bool] = Key("local endpoint")

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Swap the URL on the way out, and back in the answer. Raises `InvalidRequest` for one without a URL."""
        name, own = call.record.name, call.record.url
        if ":" not in own:
            raise InvalidRequest(f"endpoint {name!r} is not reachable at {own!r}; expected a URL")
        before = self._own.get(name)
        self._own[name] = _Own(own, frozenset(call.record.network_service_names), codec.clone(call.record))
        call.record.url = self._url
        try:
            record = await rest.register(call)
        except (Unavailable, TimedOut):
            if before is None:
                self._restore(name, None)
            raise
        except BaseException:
            self._restore(name, before)
            raise
        call.undo.add(lambda: self._restore(name, before))
        record.url = own
        if call.live.get(self._known) is None:
            call.live.put(self._known, True)
            call.live.on_end(lambda: self._restore(name, None))
        return record

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Swap the URLs back. A URL in the query is that of a manager: endpoints are published under it."""
        try:
            async for batch in rest.find(call):
                yield [own for found in batch if (own := self._as_known_here(found)) is not None]
        except (Unavailable, TimedOut):
            if call.watch or not (known := self._matching(call.record)):
                raise
            yield known

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Unregister the published record."""
        call.record.url = self._url
        await rest.unregister(call)

    def _as_known_here(self, found: Found[Endpoint]) -> Found[Endpoint] | None:
        known, record = self._own.get(found.record.name), found.record
        if known is None:
            is_elsewhere = record.url != self._url and record.url.startswith("tcp:")
            return found if found.deleted or is_elsewhere else None
        if not found.deleted and not known.services.issuperset(record.network_service_names):
            return None
        record = codec.clone(record)
        record.url = known.url
        return Found(record, found.deleted)

    def _matching(self, query: Endpoint) -> list[Found[Endpoint]]:
        """Those of this node that `query` means."""
        if query.url and query.url != self._url:
            return []
        wanted = replace(query, url="")
        return [Found(codec.clone(own.record)) for own in self._own.values() if endpoint_matches(wanted, own.record)]

    def _restore(self, name: str, before: _Own | None) -> None:
        if before is None:
            self._own.pop(name, None)
        else:
            self._own[name] = before


@dataclass(frozen=True, slots=True)
class _Own:
    """The URL and the services of an endpoint on this node."""

    url: str
    services: frozenset[str]
    record: Endpoint
