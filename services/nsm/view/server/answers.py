"""Answers in JSON: long ones leave time for other work while they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from aiohttp import web

from nsm.view import form
from nsm.view.model import Snapshot

JSON = "application/json"
_AT_ONCE = 64
"""How many values are encoded before other work has its turn."""


def error(status: int, text: str) -> web.Response:
    """An error: an object with `error`, one line."""
    return web.json_response({"error": text}, status=status)


async def listed(request: web.Request, values: Iterable[Any]) -> web.StreamResponse:
    """A list of values of the model."""
    return await _streamed(request, _list(values))


async def whole(request: web.Request, snapshot: Snapshot) -> web.StreamResponse:
    """A snapshot, its fields one after the other."""
    return await _streamed(request, snapshot_pieces(snapshot))


def one(value: Any) -> web.Response:
    """One value of the model."""
    return web.Response(text=text_of(value), content_type=JSON)


def text_of(value: Any) -> str:
    """A value of the model as a line of JSON."""
    return json.dumps(form.to_json(value), ensure_ascii=False, separators=(",", ":"))


def snapshot_pieces(snapshot: Snapshot) -> Iterator[str]:
    """The JSON of a snapshot, in pieces that are quick to make."""
    first = "{"
    for field in fields(snapshot):
        value = getattr(snapshot, field.name)
        if not isinstance(value, Sequence) or isinstance(value, str):
            written = json.dumps(value if isinstance(value, str) else form.time_text(value))
            yield f"{first}{json.dumps(field.name)}:{written}"
        elif value:
            yield f"{first}{json.dumps(field.name)}:"
            yield from _list(value)
        else:
            continue
        first = ","
    yield "}"


async def write(response: web.StreamResponse, pieces: Iterator[str]) -> None:
    """Write all pieces, with a turn for other work between them."""
    for piece in pieces:
        await response.write(piece.encode())
        await asyncio.sleep(0)


def _list(values: Iterable[Any]) -> Iterator[str]:
    each, first = iter(values), True
    yield "["
    while batch := list(islice(each, _AT_ONCE)):
        yield ("" if first else ",") + ",".join(map(text_of, batch))
        first = False
    yield "]"


async def _streamed(request: web.Request, pieces: Iterator[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": f"{JSON}; charset=utf-8"})
    await response.prepare(request)
    await write(response, pieces)
    await response.write_eof()
    return response
