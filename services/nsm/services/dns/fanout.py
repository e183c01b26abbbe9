"""Queries all servers at once; the first positive answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import dns.message
import dns.rcode

from .query import Answer, Query, Rest, failure

Ask = Callable[[dns.message.Message, str], Awaitable[Answer]]
"""Queries one server. Raises OSError, TimeoutError or ValueError if it does not answer."""

PATIENCE = 0.5
"""Seconds that other servers have for a better answer after one reported that the name does not exist."""
AT_ONCE = 256
"""Concurrent queries to servers in total: each takes a socket, and the client needs some too."""


class Fanout:
    """Query all servers in parallel; the first success counts.

    Without success, an answer that the name does not exist is better than a failure. A server that does not respond
    does not delay the answers of others.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask_one, self._turns = ask, asyncio.Semaphore(AT_ONCE)

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Query; without servers, there is no answer."""
        del rest  # this is the last step
        asking: set[asyncio.Future[Answer]] = {
            asyncio.ensure_future(self._ask(query.message, s)) for s in query.servers
        }
        try:
            return await _best(asking) or failure(query.message, dns.rcode.SERVFAIL)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, message: dns.message.Message, server: str) -> Answer:
        async with self._turns:
            return await self._ask_one(message, server)


async def _best(asking: set[asyncio.Future[Answer]]) -> Answer | None:
    loop = asyncio.get_running_loop()
    left, best, until = asking, None, None
    while left:
        done, left = await asyncio.wait(
            left, timeout=None if until is None else until - loop.time(), return_when=asyncio.FIRST_COMPLETED
        )
        for answer in filter(None, map(_answer_of, done)):
            if answer.rcode() == dns.rcode.NOERROR:
                return answer
            if answer.rcode() == dns.rcode.NXDOMAIN and until is None:
                best, until = answer, loop.time() + PATIENCE
            best = best or answer
        if not done:
            break
    return best


def _answer_of(task: asyncio.Future[Answer]) -> Answer | None:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, (OSError, TimeoutError, ValueError)):
        return None
    raise error
