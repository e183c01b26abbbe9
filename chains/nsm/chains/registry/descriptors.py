"""Passes endpoints' unix sockets as descriptors: ``unix:///path`` locally, ``inode://device/inode`` in messages.

A path from a peer is neither opened nor connected to: that would happen with this component's rights.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    Found,
    InvalidRequest,
    Key,
    Received,
    Refused,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Store,
    TimedOut,
    Unavailable,
    file_key,
    inode_url,
    shown_url,
)

ARRIVAL_TIMEOUT = 2.0
_UNIX = "unix://"
_PATHS, _PATHS_AND_DESCRIPTORS = ("unix", "file"), ("unix", "file", "inode")

Endpoint = NetworkServiceEndpoint


class SendUrl(RegistryElement[NetworkServiceEndpoint]):
    """For a client chain: send the socket of a registered endpoint as a descriptor; the caller keeps its own URL."""

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


class Sockets:
    """The received sockets of a node's endpoints, which may be sent on, by their local URLs."""

    def __init__(self) -> None:
        self._held: dict[str, Received] = {}

    def hold(self, socket: Received) -> str:
        """Keep a received socket; returns its URL. Raises `InvalidRequest` if the file is not a socket."""
        if not socket.is_socket:
            socket.release()
            raise InvalidRequest("expected an endpoint's unix socket; received a namespace")
        url = f"{_UNIX}{socket.path}"
        self._held[url] = socket
        return url

    def release(self, url: str) -> None:
        """Release a socket."""
        self._held.pop(url).release()

    def __contains__(self, url: str) -> bool:
        return url in self._held


class ReturnUrls(RegistryElement[NetworkServiceEndpoint]):
    """For a server chain: send the sockets of found endpoints as descriptors, but only those in `sockets`."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Translate each answer if the transport carries descriptors."""
        async for batch in rest.find(call):
            yield batch if call.inbox is None else [self._sent(call, found) for found in batch]

    def _sent(self, call: RegistryCall[Endpoint], found: Found[Endpoint]) -> Found[Endpoint]:
        if found.deleted or found.record.url not in self._sockets:
            return found
        record = codec.clone(found.record)
        _send(call, record)
        return Found(record)


class ReceiveUrl(RegistryElement[NetworkServiceEndpoint]):
    """For a server chain: receive the socket of a registering endpoint, and keep it open while it is registered.

    It is in `sockets` for that time. `forget` is called with its URL at the end. A socket that replaces another one is
    kept even if the registry cannot be reached, because the endpoint was restarted. Raises `Refused` for a path.
    """

    def __init__(self, forget: Callable[[str], None], sockets: Sockets) -> None:
        self._forget, self._sockets = forget, sockets
        self._known: Key[tuple[str, str]] = Key("URL of the socket, as it was named and as it is here")

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Translate on the way in, and back in the answer."""
        asked = call.record.url
        if (key := file_key(asked)) is None:
            if call.peer is not None and _is_one_of(_PATHS_AND_DESCRIPTORS, asked):
                raise Refused(f"{shown_url(asked)} is a path on the caller's side; pass the socket as a descriptor")
            return await rest.register(call)
        store, known = call.live, call.live.get(self._known)
        if known is not None and known[0] == asked:
            return await self._pass_on(call, rest, *known)
        if call.inbox is None:
            raise Refused(f"{shown_url(asked)} names a descriptor, but this connection cannot carry descriptors")
        url = self._sockets.hold(await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT))
        if known is None:
            store.on_end(lambda: self._release(store))
            store.put(self._known, (asked, url))
            return await self._pass_on(call, rest, asked, url)
        is_new_kept = True
        try:
            return await self._pass_on(call, rest, asked, url)
        except (Unavailable, TimedOut):
            raise
        except BaseException:
            is_new_kept = False
            raise
        finally:
            self._drop(known[1] if is_new_kept else url)
            if is_new_kept:
                store.put(self._known, (asked, url))

    async def _pass_on(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint], asked: str, url: str
    ) -> Endpoint:
        call.record.url = url
        record = await rest.register(call)
        record.url = asked
        return record

    def _release(self, store: Store) -> None:
        if (known := store.pop(self._known)) is not None:
            self._drop(known[1])

    def _drop(self, url: str) -> None:
        self._forget(url)
        self._sockets.release(url)


class ReceiveUrls(RegistryElement[NetworkServiceEndpoint]):
    """For a client chain: receive the sockets of found endpoints; `adopt` keeps each and returns its URL."""

    def __init__(self, adopt: Callable[[Received], str]) -> None:
        self._adopt = adopt

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Translate each answer; an endpoint at another component's path is unreachable from here."""
        async for batch in rest.find(call):
            yield [await self._received(call, found) for found in without_paths(batch, call, _PATHS)]

    async def _received(self, call: RegistryCall[Endpoint], found: Found[Endpoint]) -> Found[Endpoint]:
        key = file_key(found.record.url)
        if key is None or call.inbox is None or found.deleted:
            return found
        received = await call.inbox.take(*key, timeout=ARRIVAL_TIMEOUT)
        if not received.is_socket:
            received.release()
            raise InvalidRequest(
                f"expected the socket of endpoint {shown_url(found.record.name)}; received a namespace"
            )
        record = codec.clone(found.record)
        record.url = self._adopt(received)
        return Found(record)


class WithoutPaths(RegistryElement[NetworkServiceEndpoint]):
    """For a manager, in front of its registry: hide endpoints whose URL is a path, which this node cannot reach.

    The only allowed path is `own_url`, if the manager has no other URL.
    """

    def __init__(self, own_url: str) -> None:
        self._own_url = own_url

    async def find(
        self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]
    ) -> AsyncIterator[Sequence[Found[Endpoint]]]:
        """Leave out such endpoints."""
        async for batch in rest.find(call):
            yield without_paths(batch, call, _PATHS_AND_DESCRIPTORS, self._own_url)


def without_paths(
    batch: Sequence[Found[Endpoint]], call: RegistryCall[Endpoint], schemes: Sequence[str], own_url: str = ""
) -> list[Found[Endpoint]]:
    """The records whose URL has none of `schemes`; a watch reports the others as deleted."""
    result = []
    for found in batch:
        if found.record.url == own_url or not _is_one_of(schemes, found.record.url):
            result.append(found)
        elif call.watch:
            result.append(Found(found.record, deleted=True))
    return result


def _is_one_of(schemes: Sequence[str], url: str) -> bool:
    return url.partition(":")[0].lower() in schemes


@contextmanager
def _sending(call: RegistryCall[Endpoint]) -> Iterator[None]:
    """Replace the URL of the call's record while it is sent; afterwards, the call can be retried."""
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
