"""Several components may do what a call wants: ask them one after the other, within the caller's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import TRANSPORT, Call, Handler, MeshError, TimedOut, Unavailable

_MOST_OF_IT = 3
"""One try gets a third of what is left of the time, the last but one a half, the last one all."""
_GRACE = 0.05
"""Seconds that those further on have to say themselves that the time is over: they know better why."""


async def first_success(
    what: str, candidates: Iterable[NetworkServiceEndpoint], count: int, call: Call, rest: Handler
) -> tuple[NetworkServiceEndpoint, Connection]:
    """Ask the `count` candidates until one succeeds; returns it and its answer. One at least must be there.

    What a failed try did is undone before the next one, who is asked what the caller asked and not what the failed one
    answered, and none may take the time of all. Raises the error of a single candidate, with its name if it could not
    be asked; of several, one of the last one's kind that tells of all.
    """
    asked = codec.clone(call.request) if count > 1 else call.request
    named = call.connection.network_service_endpoint_name
    failures: list[tuple[str, MeshError]] = []
    for tried, candidate in enumerate(candidates):
        try:
            async with call.undo.attempt(), _share_of_the_time(call, count - tried, candidate.name):
                call.target = candidate.url
                return candidate, await rest.request(call)
        except MeshError as error:
            failures.append((candidate.name, error))
            call.request = codec.clone(asked) if tried + 1 < count else asked
            call.connection.network_service_endpoint_name = named
    try:
        raise all_failed(what, failures)
    finally:
        failures.clear()  # their tracebacks hold this frame


def all_failed(what: str, failures: list[tuple[str, MeshError]]) -> MeshError:
    """One error for several tries: the only one, else one of the last one's kind with a word on each."""
    name, last = failures[-1]
    if len(failures) == 1:
        tell_whom(name, last)
        return last
    told = "; ".join(f"{name}: {error}" for name, error in failures)
    return type(last)(f"all {what} have failed: {told}")


def tell_whom(name: str, error: MeshError) -> None:
    """Put the name of who was asked into an error if he could not be: his URL may be that of a mere descriptor."""
    if was_not_reached(error):
        error.detail = f"{name}: {error.detail}"


def was_not_reached(error: MeshError) -> bool:
    """Whether it says that who was to be asked is not there, and not that he answered so."""
    return isinstance(error, Unavailable) and error.element == TRANSPORT and not error.hops


@asynccontextmanager
async def _share_of_the_time(call: Call, left: int, name: str) -> AsyncIterator[None]:
    """Give the body its part of the call's time, if the caller named a deadline and `left` candidates include others.

    Raises `TimedOut` when it is over.
    """
    remaining, deadline = call.remaining(), call.deadline
    if remaining is None or left < 2:
        yield
        return
    share = remaining / min(left, _MOST_OF_IT)
    call.deadline = asyncio.get_running_loop().time() + share
    try:
        async with asyncio.timeout_at(call.deadline + _GRACE):
            yield
    except TimeoutError:
        raise TimedOut(f"{name!r} did not answer within {share:.2f} s") from None
    finally:
        call.deadline = deadline
