"""REST: the state of a mesh as JSON, and its stream of changes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from nsm.chains.core import InvalidRequest, NotFound
from nsm.view.model import Change, ChangeKind, Wire, WireState
from nsm.view.source import find
from nsm.view.state import State

from .answers import error, listed, one, snapshot_pieces, text_of, whole, write
from .openapi import PREFIX, document

_FILTERS = ("client", "service", "endpoint", "node", "state")
_QUIET = 15.0
"""Seconds without changes after which a stream shows that it is alive."""
_MOST_EVENTS = 20_000


class Api:
    """Answers from `state`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """All of REST."""
        records = self._state.records
        lists = {
            "attempts": self._state.attempts,
            "services": records.services,
            "endpoints": records.endpoints,
            "components": self._state.components,
            "nodes": self._state.nodes,
            "domains": self._state.domains,
        }
        return [
            web.get(f"{PREFIX}/snapshot", self._snapshot),
            web.get(f"{PREFIX}/wires", self._wires),
            web.get(f"{PREFIX}/wires/{{name:.+}}", self._wire),
            web.get(f"{PREFIX}/events", self._events),
            web.get(f"{PREFIX}/traffic", self._traffic),
            web.get(f"{PREFIX}/stream", self._stream),
            web.get("/api/openapi.json", _openapi),
            *(web.get(f"{PREFIX}/{name}", _listing(read)) for name, read in lists.items()),
        ]

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        return await whole(request, self._state.snapshot())

    async def _wires(self, request: web.Request) -> web.StreamResponse:
        unknown = sorted(set(request.query) - {*_FILTERS, "down"})
        if unknown:
            return error(400, f"{unknown[0]!r} is not a filter; there are {', '.join(_FILTERS)} and down")
        return await listed(request, [each for each in self._state.wires() if _fits(each, request)])

    async def _wire(self, request: web.Request) -> web.StreamResponse:
        try:
            return one(find(request.match_info["name"], self._state.wires()))
        except NotFound as missing:
            return error(404, missing.detail)
        except InvalidRequest as several:
            return error(409, several.detail)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        after, most = request.query.get("after", "0"), request.query.get("limit", str(_MOST_EVENTS))
        for name, text in (("after", after), ("limit", most)):
            if not (text.isascii() and text.isdigit() and len(text) <= 15):
                return error(400, f"{name} is {text!r}; expected a whole number")
        history = self._state.history
        return await listed(request, history.events(request.query.get("wire", ""), after=int(after), most=int(most)))

    async def _traffic(self, request: web.Request) -> web.StreamResponse:
        return await listed(request, self._state.counts.of(request.query.get("wire", "")))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: each has the position behind it as its id, the kind as its event, the change as data."""
        position = request.headers.get("Last-Event-ID", request.query.get("after", ""))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        async with aclosing(cast(Any, self._state.stream.follow(position))) as changes:
            waiting: asyncio.Future[Change] = asyncio.ensure_future(anext(changes))
            try:
                while True:
                    done, _ = await asyncio.wait({waiting}, timeout=_QUIET)
                    if not done:
                        await response.write(b": nothing new\n\n")
                        continue
                    await _send(response, waiting.result())
                    waiting = asyncio.ensure_future(anext(changes))
            except ConnectionError:
                return response
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


def _fits(wire: Wire, request: web.Request) -> bool:
    query = request.query
    if query.get("down", "false") not in ("false", "0") and wire.state is WireState.UP:
        return False
    return all(getattr(wire, name) == query[name] for name in _FILTERS if name in query)


async def _send(response: web.StreamResponse, change: Change) -> None:
    head = f"id: {change.position}\nevent: {change.kind}\ndata: ".encode()
    if change.kind is ChangeKind.SNAPSHOT and change.snapshot is not None:
        await response.write(head)
        begin = text_of(Change(kind=change.kind, position=change.position)).removesuffix("}")
        await response.write(f'{begin},"snapshot":'.encode())
        await write(response, snapshot_pieces(change.snapshot))
        await response.write(b"}\n\n")
        return
    await response.write(head + text_of(change).encode() + b"\n\n")


def _listing(read: Any) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await listed(request, read())

    return answer


async def _openapi(_request: web.Request) -> web.Response:
    return web.json_response(document())
