"""All routes of a view's server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from nsm.view.state import State

from . import figures
from .access import Access, add_headers
from .answers import error
from .api import Api
from .dashboard import Dashboard

PAGE = Path(__file__).parent.parent / "page"
"""The folder of the page's files."""
_LONGEST_REQUEST = 1024


def application(state: State, *, token: str = "", dashboard_origin: str = "", page: Path = PAGE) -> web.Application:
    """A server for `state`, which nothing can change; pages of `dashboard_origin` may read upstream's dashboard API."""
    app = web.Application(middlewares=[Access(token).middleware], client_max_size=_LONGEST_REQUEST)
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            *Api(state).routes(),
            *Dashboard(state, dashboard_origin).routes(),
            web.get("/metrics", figures.answer),
            web.get("/healthz", _health),
        ]
    )
    if (page / "index.html").is_file():
        app.add_routes([web.get("/", _index(page / "index.html")), web.static("/page", page)])
    app.router.add_route("*", "/{path:.*}", _unknown)
    return app


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def _index(file: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(file)

    return answer


async def _unknown(request: web.Request) -> web.Response:
    if request.method not in ("GET", "HEAD"):
        return error(405, f"{request.method} is not possible: nothing can be changed here")
    return error(404, f"there is nothing at {request.path}; /api/openapi.json describes what there is")
