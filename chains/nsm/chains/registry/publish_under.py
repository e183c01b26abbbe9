"""Publishes endpoints in other domains under the proxy's URL, and remembers where they really are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Found, Key, RegistryCall, RegistryElement, RegistryHandler

Endpoint = NetworkServiceEndpoint


class PublishUnder(RegistryElement[NetworkServiceEndpoint]):
    """Register endpoints of this domain in others under `url`, the proxy's, and find endpoints of others under it.

    So components of a domain need to reach their own proxy only. `elsewhere` has the URL of each endpoint of this
    domain that is registered in another, by its name there, for as long as it is registered.
    """

    def __init__(self, url: str, elsewhere: dict[str, str]) -> None:
        self._url, self._elsewhere = url, elsewhere
        self._known: Key[bool] = Key("endpoint registered in another domain")

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Swap the URL on the way out, and back in the answer."""
        own, call.record.url = call.record.url, self._url
        record = await rest.register(call)
        record.url = own
        self._elsewhere[record.name] = own
        if call.live.get(self._known) is None:
            call.live.put(self._known, True)
            call.live.on_end(lambda: self._forget(record.name))
        return record

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Swap the URLs of what is found."""
        async for batch in rest.find(call):
            yield [self._published(one) for one in batch]

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Unregister what was published."""
        call.record.url = self._url
        await rest.unregister(call)

    def _forget(self, name: str) -> None:
        self._elsewhere.pop(name, None)

    def _published(self, found: Found[Endpoint]) -> Found[Endpoint]:
        record = codec.clone(found.record)  # it may be in a cache
        record.url = self._url
        return Found(record, found.deleted)
