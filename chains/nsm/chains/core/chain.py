"""The whole algebra: a handler answers calls, an element wraps a handler, a chain is a list of elements.

    async def request(self, call: Call, rest: Handler) -> Connection

An element does its part, awaits ``rest.request(call)``, may change the result, or raises. It never knows which
elements are before or after it. It registers each step for a call with ``call.undo`` so that a failure or a
cancellation anywhere leaves nothing behind; its state of a connection is in ``call.live``. A `close` always cleans up
locally, even if ``rest.close`` raises: ``try: await rest.close(call) finally: ...``.

A chain is bound once, when the service starts: each element is then tied to the rest of the chain, and a call costs
one coroutine per element. An element that leaves out a method costs that method nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Protocol

from nsm.apis.connection import Connection
from nsm.chains.errors import MeshError

from .call import Call
from .tracing import traced


class Handler(Protocol):
    """Anything that answers a Request and a Close: the rest of a chain, a whole chain, a peer."""

    async def request(self, call: Call, /) -> Connection:
        """Establish or refresh `call.connection`; returns the resulting connection."""
        ...

    async def close(self, call: Call, /) -> None:
        """End `call.connection`."""
        ...


class Element:
    """One link of a chain. Override `request`, `close` or both; the default passes on."""

    @property
    def name(self) -> str:
        """The name that errors and spans show."""
        return element_name(type(self))

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Do this element's part of a Request and await `rest.request(call)`."""
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Do this element's part of a Close and await `rest.close(call)`, whatever happens."""
        await rest.close(call)

    async def aclose(self) -> None:
        """Release what the element holds beyond connections; called once when the service stops."""


class End:
    """The end of a chain: returns the connection that arrives."""

    async def request(self, call: Call) -> Connection:
        """Return the connection as the elements left it."""
        return call.connection

    async def close(self, call: Call) -> None:
        """Nothing is left to do."""


class Chain:
    """A list of elements, bound to each other; itself a `Handler`.

    `end` follows the last element (a peer, for a client's chain). As an async context manager it releases the
    elements, last first, when the service stops.
    """

    def __init__(self, elements: Sequence[Element], end: Handler | None = None) -> None:
        self.elements = tuple(elements)
        self._first = bind(self.elements, end or End())
        self.request = self._first.request
        self.close = self._first.close

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the elements, last first."""
        for element in reversed(self.elements):
            await element.aclose()


def bind(elements: Sequence[Element], end: Handler) -> Handler:
    """Tie each element to the rest of the chain; the result is the first one's handler."""
    handler = end
    for element in reversed(elements):
        handler = _Step(element, handler)
    return handler


class _Step:
    """One element with the rest of its chain: notes the element's name in errors and opens its span."""

    def __init__(self, element: Element, rest: Handler) -> None:
        self._element, self._rest, self._name = element, rest, element.name
        skips = partial(leaves_out, element, Element)
        self.request = rest.request if skips("request") else traced(self._name, "Request", self._request)
        self.close = rest.close if skips("close") else traced(self._name, "Close", self._close)

    async def _request(self, call: Call) -> Connection:
        try:
            return await self._element.request(call, self._rest)
        except MeshError as error:
            error.raised_in(self._name)
            raise

    async def _close(self, call: Call) -> None:
        try:
            await self._element.close(call, self._rest)
        except MeshError as error:
            error.raised_in(self._name)
            raise


def leaves_out(element: object, base: type, method: str) -> bool:
    """Whether `element` only inherits `method` from its base class, which passes calls on."""
    return getattr(type(element), method) is getattr(base, method)


def element_name(kind: type) -> str:
    """The name that errors and spans show for an element: its class name in snake case."""
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(kind.__name__))
