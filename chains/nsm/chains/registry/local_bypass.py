"""Endpoints of a manager's own node: the world sees the manager's URL, the node sees theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Found, InvalidRequest, Key, RegistryCall, RegistryElement, RegistryHandler

Endpoint = NetworkServiceEndpoint


class LocalBypass(RegistryElement[NetworkServiceEndpoint]):
    """Publish local endpoints under the manager's `url`, and find them under their own.

    An endpoint that is registered under the manager's URL but not known here is a leftover of before a restart and
    is not found.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._own_urls: dict[str, str] = {}
        self._known: Key[bool] = Key("local endpoint")

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Swap the URL on the way out, and back in the answer. Raises `InvalidRequest` for one without a URL."""
        name, own = call.record.name, call.record.url
        if ":" not in own:
            raise InvalidRequest(f"endpoint {name!r} has no URL to be reached at, but {own!r}")
        before = self._own_urls.get(name)
        self._own_urls[name] = own
        call.undo.add(lambda: self._restore(name, before))
        call.record.url = self._url
        record = await rest.register(call)
        record.url = own
        if call.live.get(self._known) is None:
            call.live.put(self._known, True)
            call.live.on_end(lambda: self._restore(name, None))
        return record

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Swap the URLs back. A URL in the query is that of a manager: endpoints are published under it."""
        async for batch in rest.find(call):
            yield [own for found in batch if (own := self._own(found)) is not None]

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Unregister what is published."""
        call.record.url = self._url
        await rest.unregister(call)

    def _own(self, found: Found[Endpoint]) -> Found[Endpoint] | None:
        own = self._own_urls.get(found.record.name)
        if own is None:
            return None if found.record.url == self._url and not found.deleted else found
        record = codec.clone(found.record)
        record.url = own
        return Found(record, found.deleted)

    def _restore(self, name: str, url: str | None) -> None:
        if url is None:
            self._own_urls.pop(name, None)
        else:
            self._own_urls[name] = url
