"""The HTTPS server that the API server calls."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web
from aiohttp.web_exceptions import HTTPException

from nsm.chains.core import Exhausted, InvalidRequest, Limits, MeshError, TimedOut
from nsm.chains.logs import log
from nsm.chains.transport.urls import Address

from .admission import Admission
from .bodies import Bodies
from .door import open_door

_GRACE = 5.0
"""Seconds that running requests have when the server stops."""
_IDLE = 30.0
"""Timeout for the head of a request, in seconds."""
_LINGER = 1.0
"""Seconds for reading and discarding the rest of a rejected body."""
_LONGEST_LINE = 4096
_MOST_HEADERS = 64


def application(admission: Admission, fault: Callable[[], str], limits: Limits | None = None) -> web.Application:
    """``POST /mutate`` and ``GET /ready``; `fault` returns in one line why the server is not ready, or an empty text.

    The kubelet does not show the output of `/ready`, so later changes of readiness are logged.
    """
    told: str | None = None
    bodies = Bodies(limits or Limits())

    async def mutate(request: web.Request) -> web.Response:
        try:
            answer = await admission.review(json.loads(await bodies.read(request)))
            return web.json_response(answer)
        except (ValueError, RecursionError) as error:
            return _told(400, str(error) or "the review is nested too deeply")
        except InvalidRequest as error:
            return _told(413, str(error))
        except TimedOut as error:
            return _told(408, str(error))
        except Exhausted as error:
            return _told(429, str(error))
        except MeshError as error:
            log.error("cannot decide", error=str(error))
            return _told(503, str(error))

    async def ready(_request: web.Request) -> web.Response:
        nonlocal told
        wrong = fault()
        if told is not None and told != wrong:
            log.error("not ready", reason=wrong) if wrong else log.info("ready again")
        if told is not None or not wrong:
            told = wrong
        return web.Response(status=503 if wrong else 200, text=f"{wrong or 'ready'}\n")

    served = web.Application(middlewares=[_in_one_line])
    served.add_routes([web.post("/mutate", mutate), web.get("/ready", ready)])
    return served


@asynccontextmanager
async def serving(
    served: web.Application, address: Address, context: ssl.SSLContext, limits: Limits | None = None
) -> AsyncIterator[int]:
    """Serve over TLS; yields the port. Raises `InvalidRequest` if `address` cannot be bound."""
    runner = web.AppRunner(
        served,
        access_log=None,
        shutdown_timeout=_GRACE,
        keepalive_timeout=_IDLE,
        lingering_time=_LINGER,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        max_headers=_MOST_HEADERS,
        auto_decompress=False,  # API servers do not compress
        logger=_Lines("nsm.webhook"),
    )
    await runner.setup()
    assert runner.server is not None
    door = open_door(address.host or None, address.port, runner.server, context, limits or Limits(), runner.cleanup)
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(door)
        except OSError as error:
            await runner.cleanup()
            raise InvalidRequest(f"cannot listen on {address}: {error.strerror or error}") from None
        yield port


@web.middleware
async def _in_one_line(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Log malformed or aborted requests only at debug level, in one line."""
    try:
        return await handler(request)
    except HTTPException:
        raise
    except (OSError, web.RequestPayloadError) as error:
        log.debug("a caller disconnected or sent invalid HTTP", error=str(error) or type(error).__name__)
        return _told(400, "the request could not be read")


class _Lines(logging.Logger):
    """aiohttp's log messages, in one line and without tracebacks, since callers cause them."""

    def exception(self, msg: object, *args: object, **_more: object) -> None:
        error = _more.get("exc_info")
        log.debug("a request could not be answered", error=f"{type(error).__name__}: {error}"[:200])


def _told(status: int, text: str) -> web.Response:
    line = " ".join(text.split())[:1000]
    return web.Response(status=status, text=f"{line}\n")
