"""The messages of a caller that sends several in one call, read one at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from betterproto2 import Message

from nsm.apis import codec
from nsm.chains.core import Exhausted, InvalidRequest, MeshError

M = TypeVar("M", bound=Message)

MOST_WAITING = 64
"""Messages of one call that may wait to be read."""


class Inflow:
    """The messages of one call, as they arrive. Each may have `longest` bytes; `limit` is the name of that limit."""

    def __init__(self, longest: int, limit: str) -> None:
        self._longest, self._limit = longest, limit
        self._body, self._waiting = bytearray(), deque[bytes]()
        self._has_ended, self._fault = False, None  # type: bool, MeshError | None
        self._news = asyncio.Event()

    @property
    def is_readable(self) -> bool:
        """Whether there is a message, the end, or a fault to read."""
        return bool(self._waiting) or self._has_ended or self._fault is not None

    def receive(self, data: bytes) -> None:
        """A part of the messages arrived. A fault in it is raised where the messages are read."""
        if self._fault is None:
            self._body += data
            try:
                self._take_apart()
            except MeshError as error:
                self._fault = error
        self._news.set()

    def end(self) -> None:
        """The caller has sent everything."""
        if self._body and self._fault is None:
            self._fault = InvalidRequest("the call ended in the middle of a message")
        self._has_ended = True
        self._news.set()

    async def messages(self, kind: type[M]) -> AsyncIterator[M]:
        """The messages, until the caller ends. Raises `InvalidRequest` or `Exhausted` for a caller's fault."""
        while True:
            while self._waiting:
                yield _decoded(kind, self._waiting.popleft())
            if self._fault is not None:
                raise self._fault.with_traceback(None)
            if self._has_ended:
                return
            self._news.clear()
            await self._news.wait()

    def _take_apart(self) -> None:
        body = self._body
        while len(body) >= 5:
            size = int.from_bytes(body[1:5], "big")
            if body[0]:
                raise InvalidRequest("a message is compressed, which was not agreed")
            if size > self._longest:
                most = f"at most {self._longest} are allowed (NSM_LIMITS={self._limit}:..)"
                raise InvalidRequest(f"a message is too large: {self._limit} is {size}, {most}", limit=self._limit)
            if len(body) < 5 + size:
                return
            if len(self._waiting) >= MOST_WAITING:
                raise Exhausted(f"{MOST_WAITING} messages of the call wait already: send the next one after an answer")
            self._waiting.append(bytes(memoryview(body)[5 : 5 + size]))
            del body[: 5 + size]


def _decoded(kind: type[M], data: bytes) -> Any:
    try:
        return codec.decode(kind, data)
    except codec.DecodeError as error:
        raise InvalidRequest(str(error)) from None
