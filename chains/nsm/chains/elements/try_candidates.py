"""Tries several components one after the other, within the caller's time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Call, Handler, MeshError, TimedOut, Tried, was_not_reached

_MOST_OF_IT = 3
"""One attempt gets a third of the remaining time, the last but one a half, the last one all."""
_DESCRIPTOR = re.compile(r"unix:///proc/(?:self|\d+)/fd/\d+")
CANDIDATES = "candidates"
"""What endpoints are called that may provide a service."""
_GRACE = 0.05
"""Seconds left for the components behind to report that the time is over: they know better why."""


async def first_success(
    what: str, candidates: Iterable[NetworkServiceEndpoint], count: int, call: Call, rest: Handler
) -> tuple[NetworkServiceEndpoint, Connection]:
    """Try the `count` candidates until one succeeds; returns it and its answer. At least one must exist.

    A failed attempt is undone before the next one, which gets the caller's request and nothing of the failed answer,
    and no attempt may use up all of the time. Raises the error of a single candidate, with its name if it could not
    be reached; of several, one of the last one's kind that names all.
    """
    asked = codec.clone(call.request) if count > 1 else call.request
    named = call.connection.network_service_endpoint_name
    failures: list[tuple[str, MeshError]] = []
    for tried, candidate in enumerate(candidates):
        try:
            async with call.undo.attempt(), _share_of_the_time(call, count - tried, candidate.name):
                call.target, call.has_others = candidate.url, count > 1
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
    """One error for several attempts: the only one, else one of the last one's kind that lists all."""
    name, last = failures[-1]
    if len(failures) == 1:
        tell_whom(name, last)
        if what == CANDIDATES:
            note_tried(name, last)
        return last
    told = "; ".join(f"{name}: {error}" for name, error in failures)
    tried = [each for name, error in failures for each in (error.tried or (Tried(name, str(error)),))]
    remedies = dict.fromkeys(error.remedy for _, error in failures if error.remedy)
    return type(last)(f"all {what} have failed: {told}", tried=tried, remedy=next(iter(remedies), ""))


def note_tried(name: str, error: MeshError) -> None:
    """Note that an error is the answer of an endpoint, unless it lists what several have answered."""
    error.tried = error.tried or (Tried(name, str(error)),)


def with_name(name: str, text: str) -> str:
    """`text`, with a component's name in the place of its URL if that is just a descriptor."""
    return _DESCRIPTOR.sub(name, text)


def tell_whom(name: str, error: MeshError) -> None:
    """Add the candidate's name to an error if it could not be reached: its URL may be just a descriptor."""
    if was_not_reached(error):
        error.detail = f"{name}: {with_name(name, error.detail)}"
        error.remedy = f"check that {name} runs; its record in the registry ends by itself if it does not"


@asynccontextmanager
async def _share_of_the_time(call: Call, left: int, name: str) -> AsyncIterator[None]:
    """Limit the body to its part of the call's time, if the caller set a deadline and `left` candidates include others.

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
