"""Reads the bodies of requests, with limits on size, time and total memory."""

from __future__ import annotations

import asyncio
from collections import Counter

from aiohttp import web

from nsm.chains.core import Exhausted, InvalidRequest, Limits, TimedOut

_TIME = 5.0
"""Timeout of a body in seconds; API servers wait 10 s for the response."""
_AT_ONCE = 8
"""Total memory, in bodies of the largest size; one address may use half of it."""
_MOST_VALUES = 200_000
"""The most values in a review: each takes a hundred bytes of memory, however short it is."""


class Bodies:
    """Counts the bytes being read, by source address."""

    def __init__(self, limits: Limits) -> None:
        self._largest = limits.webhook_review
        self._held: Counter[str] = Counter()

    async def read(self, request: web.Request) -> bytearray:
        """The body. Raises `InvalidRequest` if it is too large, `TimedOut`, or `Exhausted` if too much is held."""
        address, body = request.remote or "", bytearray()
        if (request.content_length or 0) > self._largest:
            raise self._too_large()
        try:
            async with asyncio.timeout(_TIME):
                while chunk := await request.content.readany():
                    body += chunk
                    self._held[address] += len(chunk)
                    self._check(len(body), address)
        except TimeoutError:
            raise TimedOut(f"the review did not arrive within {_TIME:g} s") from None
        finally:
            self._held[address] -= len(body)
            if not self._held[address]:
                del self._held[address]
        if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
            raise InvalidRequest(f"the review has more than {_MOST_VALUES} values")
        return body

    def _check(self, size: int, address: str) -> None:
        if size > self._largest:
            raise self._too_large()
        if self._held[address] > _AT_ONCE * self._largest // 2 or self._held.total() > _AT_ONCE * self._largest:
            raise Exhausted("too many reviews at once; try again later")

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest(f"the review is larger than {self._largest} bytes (NSM_LIMITS=webhook_review:N)")
