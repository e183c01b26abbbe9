"""Unix sockets of endpoints travel as descriptors: ``unix:///path`` here, ``inode://device/inode`` on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    Found,
    Key,
    Received,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Store,
    file_key,
    inode_url,
)

ARRIVAL_TIMEOUT = 2.0
_UNIX = "unix://"

Endpoint = NetworkServiceEndpoint


class SendUrl(RegistryElement[NetworkServiceEndpoint]):
    """For a client chain: send the socket of an endpoint that is registered; the caller keeps its own URL."""

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Translate on the way out, and back in the answer."""
        own = call.record.url
        with _sending(call):
            record = await rest.register(call)
        record.url = own
        return record

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Translate on the way out."""
        with _sending(call):
            await rest.unregister(call)


class ReturnUrls(RegistryElement[NetworkServiceEndpoint]):
    """For a server chain: send the sockets of the endpoints that are found."""

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Translate each answer, where the transport carries descriptors."""
        async for batch in rest.find(call):
            yield batch if call.inbox is None else [_sent(call, found) for found in batch]


class ReceiveUrl(RegistryElement[NetworkServiceEndpoint]):
    """For a server chain: take the socket of an endpoint that registers; it stays open as long as the registration.

    `forget` is told the URL when it is no longer good.
    """

    def __init__(self, forget: Callable[[str], None]) -> None:
        self._forget = forget
        self._file: Key[tuple[str, Received]] = Key("received socket")

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Translate on the way in, and back in the answer."""
        asked, key = call.record.url, file_key(call.record.url)
        if key is None or call.inbox is None:
            return await rest.register(call)
        store, known = call.live, call.live.get(self._file)
        if known is None or known[0] != asked:
            received = await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
            self._release(store)
            store.put(self._file, (asked, received))
            if known is None:
                store.on_end(lambda: self._release(store))
        else:
            received = known[1]
        call.record.url = f"{_UNIX}{received.path}"
        record = await rest.register(call)
        record.url = asked
        return record

    def _release(self, store: Store) -> None:
        if (known := store.pop(self._file)) is not None:
            self._forget(f"{_UNIX}{known[1].path}")
            known[1].release()


class ReceiveUrls(RegistryElement[NetworkServiceEndpoint]):
    """For a client chain: take the sockets of the endpoints that are found; `adopt` keeps each and gives it a URL."""

    def __init__(self, adopt: Callable[[Received], str]) -> None:
        self._adopt = adopt

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Translate each answer."""
        async for batch in rest.find(call):
            yield [await self._received(call, found) for found in batch]

    async def _received(self, call: RegistryCall[Endpoint], found: Found[Endpoint]) -> Found[Endpoint]:
        key = file_key(found.record.url)
        if key is None or call.inbox is None or found.deleted:
            return found
        record = codec.clone(found.record)
        record.url = self._adopt(await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT))
        return Found(record)


@contextmanager
def _sending(call: RegistryCall[Endpoint]) -> Iterator[None]:
    """Inside, the URL of the call's record is that on the way; the call may be tried again afterwards."""
    own, outgoing = call.record.url, len(call.outgoing)
    _send(call, call.record)
    try:
        yield
    finally:
        call.record.url = own
        del call.outgoing[outgoing:]


def _send(call: RegistryCall[Endpoint], record: Endpoint) -> None:
    if record.url.startswith(_UNIX):
        path = record.url.removeprefix(_UNIX)
        record.url = inode_url(path)
        call.outgoing.append(path)


def _sent(call: RegistryCall[Endpoint], found: Found[Endpoint]) -> Found[Endpoint]:
    if found.deleted or not found.record.url.startswith(_UNIX):
        return found
    record = codec.clone(found.record)
    _send(call, record)
    return Found(record)
