"""TLS with buffers of a size that fits what is sent, and over an accepted TCP connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import sslproto
from typing import Any

SHUTDOWN_TIMEOUT = 2.0
"""Seconds for which a connection that ends waits for its peer."""


class Tls(sslproto.SSLProtocol):
    """asyncio's, which reads 256 KiB at once and has that much of memory for each connection."""

    max_size = 32 * 1024


async def accept_tls(
    sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext, *, handshake_timeout: float
) -> None:
    """Run TLS for `protocol` over an accepted socket; returns after the handshake, or raises what it failed with."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    seconds: dict[str, Any] = {"ssl_handshake_timeout": handshake_timeout, "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT}
    tls = Tls(loop, protocol, context, waiter, server_side=True, **seconds)
    transport, _ = await loop.connect_accepted_socket(lambda: tls, sock)
    try:
        await waiter
    except BaseException:
        transport.abort()
        raise
