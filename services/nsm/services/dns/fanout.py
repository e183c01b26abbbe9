"""All servers are asked at once, and the first that knows counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import dns.message
import dns.rcode

from .query import Answer, Query, Rest, failure

Ask = Callable[[dns.message.Message, str], Awaitable[Answer]]
"""Asks one server. Raises OSError, TimeoutError or ValueError if it gives no answer."""

PATIENCE = 0.5
"""Seconds that others have to do better than a server that says that there is no such name."""
AT_ONCE = 256
"""Servers that are asked at the same time, on behalf of all: each takes a socket, and the client needs some too."""


class Fanout:
    """Ask all servers in parallel; the first that succeeds counts.

    Of those that do not succeed, one that says that there is no such name is better than one that failed. A server
    that does not answer does not hold up what another one knows.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask_one, self._turns = ask, asyncio.Semaphore(AT_ONCE)

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Ask; with no server there is no answer."""
        del rest  # nobody knows better
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
