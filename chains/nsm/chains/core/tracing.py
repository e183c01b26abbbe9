"""The one place where spans of elements are opened.

Off, which is the default, a chain is bound to the elements' own methods and tracing costs nothing. `enable` must be
called before chains are built: `nsm.chains.tracing` does it when the environment asks for traces.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")
C = TypeVar("C")

OpenSpan = Callable[[str], AbstractContextManager[Any]]

_open_span: OpenSpan | None = None


def enable(open_span: OpenSpan | None) -> None:
    """Open a span with `open_span(name)` around each element's call from now on; None switches it off."""
    global _open_span  # noqa: PLW0603 - one switch of the process, set once at its start
    _open_span = open_span


def traced(
    element: str, method: str, work: Callable[[C], Coroutine[Any, Any, T]]
) -> Callable[[C], Coroutine[Any, Any, T]]:
    """`work` itself when tracing is off, else `work` inside a span named ``element.Method``."""
    open_span = _open_span
    if open_span is None:
        return work

    @functools.wraps(work)
    async def in_span(call: C) -> T:
        with open_span(f"{element}.{method}"):
            return await work(call)

    return in_span


def traced_stream(element: str, method: str, work: Callable[[C], AsyncIterator[T]]) -> Callable[[C], AsyncIterator[T]]:
    """Like `traced`, for an answer that is a stream: the span lasts as long as the stream."""
    open_span = _open_span
    if open_span is None:
        return work

    @functools.wraps(work)
    async def in_span(call: C) -> AsyncIterator[T]:
        with open_span(f"{element}.{method}"):
            async for item in work(call):
                yield item

    return in_span
