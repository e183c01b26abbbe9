"""The HTTPS server that the API server calls."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from nsm.chains.core import InvalidRequest, MeshError
from nsm.chains.logs import log
from nsm.chains.transport.urls import Address

from .admission import Admission

_LARGEST = 16 * 2**20
"""Bytes of a review: it may hold an object and its predecessor, of some 3 MiB each."""
_GRACE = 5.0
"""Seconds that requests under way may take when the server ends."""


def application(admission: Admission, fault: Callable[[], str]) -> web.Application:
    """``POST /mutate`` and ``GET /ready``; `fault` says in one line why the server is of no use, or nothing.

    The kubelet shows nobody what `/ready` says: once it was ready, each change of it is in the log.
    """
    told: str | None = None

    async def mutate(request: web.Request) -> web.Response:
        try:
            answer = await admission.review(json.loads(await request.read()))
        except (ValueError, RecursionError) as error:
            return web.Response(status=400, text=f"{error}\n")
        except MeshError as error:
            log.error("cannot decide", error=str(error))
            return web.Response(status=503, text=f"{error}\n")
        return web.json_response(answer)

    async def ready(_request: web.Request) -> web.Response:
        nonlocal told
        wrong = fault()
        if told is not None and told != wrong:
            log.error("not ready", reason=wrong) if wrong else log.info("ready again")
        if told is not None or not wrong:
            told = wrong
        return web.Response(status=503 if wrong else 200, text=f"{wrong or 'ready'}\n")

    served = web.Application(client_max_size=_LARGEST)
    served.add_routes([web.post("/mutate", mutate), web.get("/ready", ready)])
    return served


@asynccontextmanager
async def serving(served: web.Application, address: Address, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve over TLS; gives the port. Raises `InvalidRequest` if `address` cannot be had."""
    runner = web.AppRunner(served, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host or None, address.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise InvalidRequest(f"cannot listen on {address}: {error.strerror or error}") from None
        yield runner.addresses[0][1]
    finally:
        await asyncio.shield(runner.cleanup())
