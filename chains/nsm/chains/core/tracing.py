"""The one place where spans of elements are opened.

If tracing is off, which is the default, a chain is bound to the elements' own methods and tracing costs nothing.
`enable` must be called before chains are built: `nsm.chains.tracing` does it when the environment enables traces.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
C = TypeVar("C")


class Hooks(Protocol):
    """Opens spans: `nsm.chains.tracing` has an implementation that uses OpenTelemetry."""

    def span(self, name: str) -> AbstractContextManager[Any]:
        """A span inside the current one."""
        ...

    def describe(self, call: Any, answer: Any = None) -> None:
        """Put the subject and the result of `call` on the current span, if that is recorded."""
        ...

    def client(self, name: str) -> AbstractContextManager[list[tuple[str, str]]]:
        """A span of a call to another process; returns the metadata that carries the context there."""
        ...

    def server(self, name: str, metadata: Mapping[str, str]) -> AbstractContextManager[Any]:
        """A span of a call from another process, inside the one that `metadata` describes."""
        ...


hooks: Hooks | None = None
"""None: tracing is off."""


def enable(new: Hooks | None) -> None:
    """Open spans with `new` from now on; None switches tracing off. Chains look once, when they are bound."""
    global hooks  # noqa: PLW0603 - one switch of the process, set once at its start
    hooks = new


def traced(
    element: str, method: str, work: Callable[[C], Coroutine[Any, Any, T]]
) -> Callable[[C], Coroutine[Any, Any, T]]:
    """`work` itself when tracing is off, else `work` inside a span named ``element.Method`` that describes the call."""
    if hooks is None:
        return work
    open_span, describe = hooks.span, hooks.describe

    @functools.wraps(work)
    async def in_span(call: C) -> T:
        with open_span(f"{element}.{method}"):
            answer: T | None = None
            try:
                answer = await work(call)
                return answer
            finally:
                describe(call, answer)

    return in_span


def traced_stream(element: str, method: str, work: Callable[[C], AsyncIterator[T]]) -> Callable[[C], AsyncIterator[T]]:
    """Like `traced`, for an answer that is a stream: the span lasts as long as the stream."""
    if hooks is None:
        return work
    open_span, describe = hooks.span, hooks.describe

    @functools.wraps(work)
    async def in_span(call: C) -> AsyncIterator[T]:
        with open_span(f"{element}.{method}"):
            describe(call)
            async for item in work(call):
                yield item

    return in_span
