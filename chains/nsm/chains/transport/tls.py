"""TLS with buffers that fit the data, over TCP connections that are made or accepted."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from asyncio import sslproto
from typing import Any, cast

from .keepalive import Keepalive, keepalive

SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a closing connection waits for its peer."""
_OF_ITSELF = ("_read_ready_cb", "_write_ready")
"""Where asyncio's own transport keeps methods of itself, and so itself, beyond its end."""


class Tls(sslproto.SSLProtocol):
    """asyncio's, which gives each connection 256 KiB to read to: ours share one buffer.

    When the connection is lost, no reference cycle is left: its memory is free at once.
    """

    max_size = 32 * 1024

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        handshake_timeout: float,
        server_hostname: str | None = None,
    ) -> None:
        self._shaken: asyncio.Future[None] = loop.create_future()
        self._keepalive: Keepalive | None = None
        seconds: dict[str, Any] = {"ssl_handshake_timeout": handshake_timeout, "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT}
        super().__init__(loop, protocol, context, self._shaken, server_side, server_hostname, **seconds)
        self._ssl_buffer_view = self._ssl_buffer = read_buffer()  # no bytearray, but used as one

    async def shake_hands(self) -> None:
        """Return after the handshake, or raise its error; the connection is aborted then."""
        try:
            await self._shaken
        except BaseException as error:
            if (transport := self._transport) is not None:
                cast(asyncio.Transport, transport).abort()
            raise error.with_traceback(None)  # noqa: B904  # asyncio's frames hold the error, and it holds them
        finally:
            del self._shaken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection begins."""
        if transport.get_extra_info("socket").family != socket.AF_UNIX:
            self._keepalive = keepalive()
            self._keepalive.add(cast(asyncio.Transport, transport))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        transport = self._transport
        if self._keepalive is not None:
            self._keepalive.discard(cast(asyncio.Transport, transport))
        super().connection_lost(exc)
        for name in _OF_ITSELF:
            vars(transport).pop(name, None)


def read_buffer() -> memoryview:
    """The buffer that this thread's connections read to, one after the other: none keeps data there between reads."""
    if not hasattr(_thread, "buffer"):
        _thread.buffer = memoryview(bytearray(Tls.max_size))
    buffer: memoryview = _thread.buffer
    return buffer


_thread = threading.local()


async def accept_tls(
    sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext, *, handshake_timeout: float
) -> None:
    """Run TLS for `protocol` over an accepted socket; returns after the handshake, or raises its error."""
    loop = asyncio.get_running_loop()
    _, tls = await loop.connect_accepted_socket(
        lambda: Tls(loop, protocol, context, server_side=True, handshake_timeout=handshake_timeout), sock
    )
    await tls.shake_hands()


async def connect_tls(
    host: str, port: int, protocol: asyncio.Protocol, context: ssl.SSLContext, *, handshake_timeout: float
) -> None:
    """Connect, and run TLS for `protocol`; returns after the handshake, or raises its error."""
    loop = asyncio.get_running_loop()
    _, tls = await loop.create_connection(
        lambda: Tls(
            loop,
            protocol,
            context,
            server_side=False,
            handshake_timeout=handshake_timeout,
            server_hostname=host,
        ),
        host,
        port,
    )
    await tls.shake_hands()
