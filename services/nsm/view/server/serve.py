"""Serves a view at its addresses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from nsm.chains.core import Conflict, Unavailable
from nsm.chains.transport import SocketAccess, parse_address
from nsm.chains.transport.sockets import tcp_socket, unix_socket

_GRACE = 1.0
"""Seconds that readers have when the server ends; streams never end by themselves."""


@asynccontextmanager
async def serving(
    app: web.Application,
    addresses: Sequence[str],
    *,
    access: SocketAccess,
    tls: ssl.SSLContext | None = None,
    ports: int = 1,
) -> AsyncIterator[list[str]]:
    """Serve `app` at `addresses`, by TCP with `tls` if that is given; yields the URLs for readers.

    An address is ``tcp://host:port``, whose port 0 is any free one, or ``unix:///path``. If a port is taken, so many
    `ports` from there on are tried. Raises `MeshError`.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        yield [await _listen(runner, each, access, tls, ports) for each in addresses]
    finally:
        await runner.cleanup()


async def _listen(
    runner: web.AppRunner, text: str, access: SocketAccess, tls: ssl.SSLContext | None, ports: int
) -> str:
    address = parse_address(text)
    if address.is_unix:
        await web.SockSite(runner, unix_socket(address.path, access)).start()
        return f"unix://{address.path}"
    for further in range(ports):
        try:
            sock = await tcp_socket(asyncio.get_running_loop(), replace(address, port=address.port + further))
            break
        except Conflict:
            if further + 1 == ports:
                raise
    try:
        await web.SockSite(runner, sock, ssl_context=tls).start()
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {text}: {error.strerror or error}") from None
    port, host = sock.getsockname()[1], address.host or "localhost"
    return f"{'http' if tls is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"
