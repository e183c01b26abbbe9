"""Connection limits: anyone in a cluster may reach the webhook's port.

An API server has as many connections as concurrent requests, 200 by default. Each address has a share of all
connections, so that idle or slow clients do not block others.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nsm.chains.core import Limits, Tasks
from nsm.chains.logs import log

_HANDSHAKE = 5.0
"""Seconds for TLS."""
_PAUSE = 0.5
"""Seconds to wait if no descriptors are left for accepting."""
_TOLD_EVERY = 10.0
_BACKLOG = 128


class Door:
    """Accepts TLS connections, with protocols from `make`."""

    def __init__(self, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext, limits: Limits) -> None:
        self._make, self._context, self._limits = make, context, limits
        self._present: Counter[str] = Counter()
        self._tasks = Tasks("connections of the webhook")
        self._told = float("-inf")
        self._refused = 0

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections, forever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, (address, *_) = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.error("cannot accept a connection", error=str(error), again_in_s=_PAUSE)
                await asyncio.sleep(_PAUSE)
                continue
            if self._is_full(address):
                sock.close()
                self._tell(address)
            else:
                self._present[address] += 1
                self._tasks.spawn(self._attend(sock, address), name="connection")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._tasks.aclose()

    def _is_full(self, address: str) -> bool:
        everybody = self._present.total() >= self._limits.webhook_connections
        return everybody or self._present[address] >= max(1, self._limits.webhook_connections // 4)

    async def _attend(self, sock: socket.socket, address: str) -> None:
        """Handle one connection until its end."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        transport = None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: _Watched(self._make(), ended), sock, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE
            )
            await ended.wait()
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.debug("a TLS handshake failed", address=address, error=str(error) or type(error).__name__)
        finally:
            self._forget(address)  # first, so that the address's share is freed in any case
            if transport is None:
                sock.close()
            elif not ended.is_set():  # one that has ended cannot be aborted in every Python 3.11
                transport.abort()

    def _forget(self, address: str) -> None:
        self._present[address] -= 1
        if not self._present[address]:
            del self._present[address]

    def _tell(self, address: str) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TOLD_EVERY:
            log.warning("connections refused by the limit webhook_connections", address=address, count=self._refused)
            self._told, self._refused = now, 0


class _Watched(asyncio.Protocol):
    """Wraps a protocol, and sets an event when its connection is lost."""

    def __init__(self, inner: asyncio.Protocol, ended: asyncio.Event) -> None:
        self._inner, self._ended = inner, ended
        self.data_received = inner.data_received  # type: ignore[method-assign] # straight through
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended.set()
        self._inner.connection_lost(exc)  # type: ignore[arg-type] # typeshed says Exception


@asynccontextmanager
async def open_door(
    host: str | None,
    port: int,
    make: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext,
    limits: Limits,
    finish: Callable[[], Awaitable[None]],
) -> AsyncIterator[int]:
    """Accept connections at an address; yields the port. Raises OSError if it cannot be bound.

    At the end, no new connections are accepted, `finish` waits for responses, and then connections are closed.
    """
    listening = _listening(host, port)
    door = Door(make, context, limits)
    accepting = asyncio.ensure_future(door.accept(listening))
    try:
        yield listening.getsockname()[1]
    finally:
        accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await accepting
        listening.close()
        await asyncio.shield(asyncio.ensure_future(finish()))
        await door.aclose()


def _listening(host: str | None, port: int) -> socket.socket:
    """Bind to all addresses of both families if `host` is None."""
    if not host and socket.has_dualstack_ipv6():
        listening = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    else:
        family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
        listening = socket.create_server((host or "", port), family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening
