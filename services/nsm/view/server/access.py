"""Who may read a view, and what browsers may do with it.

A unix socket's file decides who may connect. By TCP a token is required if there is one. Without a token only this
machine is answered, and only if it uses a name of this machine: a page of another site cannot have a browser read the
view by giving its own name this machine's address. Health and metrics, which name nothing, are for everyone.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

from .answers import error

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
OPEN = ("/healthz", "/metrics")
TOKEN = "token"  # noqa: S105 - a name
_NAMES_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access:
    """Checks each request; `token` is empty if there is none."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    @web.middleware
    async def middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer with an error, or as `handler` does."""
        if request.path not in OPEN and (refused := self._refused(request)) is not None:
            return refused
        if self._is_sign_in(request):
            return _signed_in(request, self._token)
        try:
            return await handler(request)
        except web.HTTPException as raised:
            if raised.status < 400 or raised.content_type == "application/json":
                raise
            return error(raised.status, f"{request.path}: {raised.reason.lower()}")

    def _refused(self, request: web.Request) -> web.Response | None:
        place = _place(request)
        if place is None:
            return None
        if self._token:
            if self._has_token(request):
                return None
            told = "a token is required: as `Authorization: Bearer TOKEN`, or once in a browser as /?token=TOKEN"
            return error(401, told)
        if not place.is_loopback:
            return error(403, "only this machine may read this view: it has no token (NSM_TOKEN_FILE) for others")
        if _host(request.host) not in _NAMES_OF_THIS_MACHINE:
            return error(403, f"{request.host!r} is not a name of this machine; use http://localhost")
        return None

    def _has_token(self, request: web.Request) -> bool:
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        shown = [request.cookies.get(_cookie(request), "")]
        shown += [bearer.strip()] if kind.lower() == "bearer" else []
        shown += [request.query[TOKEN]] if TOKEN in request.query and request.path == "/" else []
        return any(hmac.compare_digest(each.encode(), self._token.encode()) for each in shown)

    def _is_sign_in(self, request: web.Request) -> bool:
        return bool(self._token) and request.path == "/" and TOKEN in request.query


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Tell browsers what they may do with the answer."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _place(request: web.Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of ours that the request came to; None for a unix socket."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return None
    address = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _host(host: str) -> str:
    """The host of a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower().rstrip(".")


def _cookie(request: web.Request) -> str:
    """Browsers send cookies to all ports of a host: each view has one of its own."""
    return f"nsm-view-{request.url.port or 0}"


def _signed_in(request: web.Request, token: str) -> web.Response:
    """Keep the token in a cookie that scripts cannot read, and out of the address bar."""
    response = web.Response(status=303, headers={"Location": "/"})
    response.set_cookie(
        _cookie(request), token, httponly=True, samesite="Strict", secure=request.secure, path="/", max_age=30 * 86_400
    )
    return response
