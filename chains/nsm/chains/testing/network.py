"""A transport without sockets: components in one process call each other, with identities, deadlines and descriptors.

TLS, HTTP/2 and limits of the real transport are missing. A listener on a unix socket has its file, so that it can be
named and passed as a descriptor, but nothing can connect to it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from betterproto2 import Message
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis import codec
from nsm.chains.core import (
    TRANSPORT,
    FileKey,
    Internal,
    MeshError,
    Peer,
    Presence,
    Refused,
    TimedOut,
    Unavailable,
    Unsupported,
    add_details,
    details_of,
    from_status,
)
from nsm.chains.core.descriptors import facts_of
from nsm.chains.core.tasks import log_defect
from nsm.chains.identity import Identity, trust_domain_of
from nsm.chains.transport import Conversing, Incoming, Method, Methods, Pool, Streaming, Unary, parse_address
from nsm.chains.transport.channel import Answer
from nsm.chains.transport.inbox import FileInbox, open_to_send

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Network:
    """The components of a test, by URL."""

    def __init__(self) -> None:
        self._servers: dict[str | FileKey, _Server] = {}

    @asynccontextmanager
    async def serve(
        self, url: str, methods: Methods, identity: Identity, *, name: str, presence: Presence | None = None
    ) -> AsyncIterator[str]:
        """Serve calls at `url` while the context is open; calls that are still running at its end raise `Unavailable`.

        Errors name `name` as a hop. A unix socket's file is created and removed. `presence` learns who has streams
        open.
        """
        address, server = parse_address(url), _Server(name, methods, identity, presence or Presence())
        place: str | FileKey = url
        if address.is_unix:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(address.path)
            place = facts_of(address.path).key
        self._servers[place] = server
        try:
            yield url
        finally:
            del self._servers[place]
            if address.is_unix:
                os.unlink(address.path)
            await server.stop()

    def pool(self, identity: Identity) -> MemoryPool:
        """The channels of a component with this identity, instead of a `Pool`."""
        return MemoryPool(self, identity)

    def server_at(self, target: str) -> _Server:
        """The server at `target`. Raises `Unavailable`, and `InvalidRequest` for an invalid target."""
        address = parse_address(target)
        place: str | FileKey = target
        if address.is_unix:
            with suppress(OSError):
                place = facts_of(address.path).key
        if (server := self._servers.get(place)) is None:
            raise Unavailable(f"cannot reach {target}: nothing listens there", element=TRANSPORT)
        return server


class MemoryPool(Pool):
    """The channels of one component over a `Network`."""

    def __init__(self, network: Network, identity: Identity) -> None:
        super().__init__(identity)
        self._network = network
        self._made: dict[str, MemoryChannel] = {}

    def __len__(self) -> int:
        return len(self._made)

    def channel(self, target: str) -> MemoryChannel:  # type: ignore[override]  # it has what the mesh uses of a Channel
        """The channel to `target`."""
        channel = self._made.get(target)
        if channel is None or channel.generation != self.identity.generation:
            channel = self._made[target] = MemoryChannel(self._network, target, self.identity)
        return channel

    async def listens(self, target: str) -> bool:
        """Whether a component is at `target`."""
        try:
            self._network.server_at(target)
        except Unavailable:
            return False
        return True

    def forget(self, target: str) -> None:
        """Ignored: `target` will not be called again."""
        self._made.pop(target, None)
        super().forget(target)


@dataclass
class _Line:
    """A connection of two components: their identities, and the descriptors in flight in each direction."""

    server: _Server
    client_seen: Peer
    server_seen: Peer
    inbox: FileInbox = field(default_factory=FileInbox)
    """The inbox at the client's end."""
    servers_inbox: FileInbox = field(default_factory=FileInbox)

    @property
    def peer(self) -> Peer:
        """The server's identity, as the client sees it."""
        return self.server_seen


class MemoryChannel:
    """Calls from one component to another; the part of `Channel` that the mesh uses."""

    def __init__(self, network: Network, target: str, identity: Identity) -> None:
        self.target, self.generation, self.calls = target, identity.generation, 0
        self._network, self._identity = network, identity
        self._line: _Line | None = None
        self.is_away = False
        """Returns at once: no pause is needed before a peer is tried again."""

    def check_reachable(self) -> None:
        """Return: see `is_away`."""

    async def peer(self, *, deadline: float | None = None) -> Peer:
        """The peer's identity. Raises `Unavailable`, or `Refused` if its trust domain is not trusted."""
        del deadline  # nothing takes time
        return (await self._connection()).peer

    async def unary(
        self,
        method: str,
        message: Message,
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
        files: Sequence[str] = (),
        longest: int = 0,
    ) -> tuple[M, Answer]:
        """Call `method`; see `Channel.unary`."""
        del kind, longest
        line = await self._connection()
        incoming, entry = self._incoming(line, metadata, deadline, files), line.server.method(method)
        assert isinstance(entry, Unary)

        async def answered() -> M:
            answer: M = await entry.settled(codec.clone(message), incoming)
            _send(incoming.files, line.inbox)  # at once: the server may close them as soon as it has answered
            return answer

        answer = await line.server.run(answered(), line, deadline)
        return codec.clone(answer), Answer(dict(incoming.headers), line.peer, line.inbox)

    async def stream(
        self,
        method: str,
        message: Message,
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
        longest: int = 0,
        pause: float = 0.0,
    ) -> AsyncIterator[list[M]]:
        """Call `method`; see `Channel.stream`."""
        del kind, longest, pause
        line = await self._connection()
        incoming, entry = self._incoming(line, metadata, deadline, ()), line.server.method(method)
        assert isinstance(entry, Streaming)
        async for batch in self._answers(line, entry.answer(codec.clone(message), incoming), incoming, deadline):
            yield batch

    async def converse(
        self,
        method: str,
        messages: AsyncIterator[Message],
        kind: type[M],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        longest: int = 0,
        headers: dict[str, str] | None = None,
    ) -> AsyncGenerator[M, None]:
        """Call `method`; see `Channel.converse`."""
        del kind, longest
        line = await self._connection()
        incoming, entry = self._incoming(line, metadata, None, ()), line.server.method(method)
        assert isinstance(entry, Conversing)
        sent = (codec.clone(message) async for message in messages)
        async for batch in self._answers(line, entry.answer(sent, incoming), incoming, None):
            if headers is not None:
                headers.update(incoming.headers)
            for message in batch:
                yield message

    async def _answers(
        self, line: _Line, batches_of: AsyncIterator[Sequence[Any]], incoming: Incoming, deadline: float | None
    ) -> AsyncIterator[list[Any]]:
        """What the server answers, as it arrives."""
        batches: asyncio.Queue[list[Any]] = asyncio.Queue(1)
        server_presence, who = line.server.presence, line.client_seen.spiffe_id
        server_presence.arrived(who)

        async def feed() -> None:
            async with aclosing(batches_of) as answers:  # type: ignore[type-var]
                async for batch in answers:
                    _send(incoming.files, line.inbox)
                    incoming.files.clear()
                    await batches.put([codec.clone(each) for each in batch])

        feeding = asyncio.ensure_future(line.server.run(feed(), line, deadline))
        getting: asyncio.Task[list[Any]] | None = None
        try:
            while not (feeding.done() and batches.empty()):
                getting = asyncio.ensure_future(batches.get())
                await asyncio.wait({feeding, getting}, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                else:
                    getting.cancel()
            feeding.result()
        finally:
            server_presence.left(who)
            for task in (feeding, getting):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    def close(self) -> None:
        """Close the received descriptors."""
        if self._line is not None:
            self._line.inbox.close()
            self._line.servers_inbox.close()

    async def _connection(self) -> _Line:
        server = self._network.server_at(self.target)
        if self._line is None or self._line.server is not server:
            self._line = _Line(server, _seen(self._identity, server.identity), _seen(server.identity, self._identity))
        return self._line

    def _incoming(
        self, line: _Line, metadata: Sequence[tuple[str, str]], deadline: float | None, files: Sequence[str]
    ) -> Incoming:
        _send(files, line.servers_inbox)
        return Incoming(line.client_seen, dict(metadata), deadline, line.servers_inbox)


class _Server:
    """A listening component, and its running calls."""

    def __init__(self, name: str, methods: Methods, identity: Identity, presence: Presence) -> None:
        self.name, self.identity, self.presence = name, identity, presence
        self._methods = methods
        self._running: set[asyncio.Task[Any]] = set()
        self._is_over = False

    def method(self, path: str) -> Method:
        """The method at `path`. Raises `Unsupported`."""
        if path not in self._methods:
            raise Unsupported(f"{self.name} has no method {path}", element=TRANSPORT)
        return self._methods[path]

    async def run(self, work: Awaitable[T], line: _Line, deadline: float | None) -> T:
        """The result of `work`, or the error as its caller sees it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._is_over:
            task.cancel()
        try:
            async with asyncio.timeout_at(deadline):
                return await task
        except TimeoutError:
            raise TimedOut(f"{self.name} did not answer in time", element=TRANSPORT) from None
        except asyncio.CancelledError:
            if self._is_over:
                raise Unavailable(f"{self.name} went away", element=TRANSPORT) from None
            raise
        except MeshError as error:
            error.passed(self.name)
            told = from_status(error.code, str(error), line.peer.spiffe_id)
            add_details(told, dict(details_of(error)))
            raise told from None
        except Exception as error:
            log_defect("a call failed", self.name, error)
            raise Internal(f"{self.name}: unexpected {type(error).__name__}") from None

    async def stop(self) -> None:
        """Cancel running calls."""
        self._is_over = True
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _seen(who: Identity, by: Identity) -> Peer:
    """The identity `who` as seen `by` another. Raises `Refused` if its trust domain is not trusted there."""
    domain = trust_domain_of(who.spiffe_id)
    if domain not in by.bundles:
        raise Refused(f"{who.spiffe_id} is of trust domain {domain!r}, which is not federated with ours")
    certificate = who.svid.leaf.public_bytes(Encoding.DER)
    return Peer(who.spiffe_id, certificate, seen=by.svid, address="", is_near=True)


def _send(paths: Sequence[str], inbox: FileInbox) -> None:
    for path in paths:
        inbox.arrived(open_to_send(path))
