"""Elements for tests, which can be placed anywhere in a chain.

They work for connections and for registrations: in a `Chain` and in a `RegistryChain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Element, Found, Handler, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.core.call import Hop

T = TypeVar("T")


class Record(Element, RegistryElement[Any]):
    """Record copies of the messages that pass."""

    def __init__(self) -> None:
        self.requests: list[NetworkServiceRequest] = []
        """The message of each Request."""
        self.closes: list[NetworkServiceRequest] = []
        """The message of each Close, with only the connection set."""
        self.registered: list[Any] = []
        """The record of each Register."""
        self.unregistered: list[Any] = []
        self.queries: list[Any] = []
        """The query of each Find."""
        self.last: Any = None
        """The last call itself, with what other elements added to it."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Record it, and pass it on."""
        self._note(self.requests, call, call.request)
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Record it, and pass it on."""
        self._note(self.closes, call, call.request)
        await rest.close(call)

    async def register(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> Any:
        """Record it, and pass it on."""
        self._note(self.registered, call, call.record)
        return await rest.register(call)

    async def unregister(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> None:
        """Record it, and pass it on."""
        self._note(self.unregistered, call, call.record)
        await rest.unregister(call)

    def find(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> AsyncIterator[Sequence[Found[Any]]]:
        """Record it, and pass it on."""
        self._note(self.queries, call, call.record)
        return rest.find(call)

    def _note(self, where: list[Any], call: Hop, message: Any) -> None:
        where.append(codec.clone(message))
        self.last = call


class Fail(Element, RegistryElement[Any]):
    """Raise the next of `errors` for each Request or Register instead of passing it on; None lets one pass.

    When they are used up, all pass. With `behind`, the error is raised after the rest of the chain succeeded. `error`,
    while it is set, fails every call, including Closes.
    """

    def __init__(self, *errors: BaseException | None, behind: bool = False) -> None:
        self.errors = list(errors)
        self.error: BaseException | None = None
        self._behind = behind

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Pass it on, or fail."""
        return await self._fail(self._next(), lambda: rest.request(call))

    async def close(self, call: Call, rest: Handler) -> None:
        """Pass it on, or fail."""
        await self._fail(self.error, lambda: rest.close(call))

    async def register(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> Any:
        """Pass it on, or fail."""
        return await self._fail(self._next(), lambda: rest.register(call))

    async def unregister(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> None:
        """Pass it on, or fail."""
        await self._fail(self.error, lambda: rest.unregister(call))

    def _next(self) -> BaseException | None:
        planned = self.errors.pop(0) if self.errors else None
        return self.error or planned

    async def _fail(self, error: BaseException | None, go_on: Callable[[], Awaitable[T]]) -> T:
        if error is None:
            return await go_on()
        if self._behind:
            await go_on()
        raise error


class Delay(Element, RegistryElement[Any]):
    """Delay calls by `seconds`, and until `gate` is set; `waiting` is the number of waiting calls."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.waiting = seconds, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Wait, then pass it on."""
        await self._wait()
        return await rest.request(call)

    async def close(self, call: Call, rest: Handler) -> None:
        """Wait, then pass it on."""
        await self._wait()
        await rest.close(call)

    async def register(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> Any:
        """Wait, then pass it on."""
        await self._wait()
        return await rest.register(call)

    async def unregister(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> None:
        """Wait, then pass it on."""
        await self._wait()
        await rest.unregister(call)

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.sleep(self.seconds)
            await self.gate.wait()
        finally:
            self.waiting -= 1


class Check(Element, RegistryElement[Any]):
    """Pass each Request or Register to `before`, and its result to `after`; an assert in them fails the call.

    Both may modify it, so a `Check` can also stand in for parts that a test leaves out.
    """

    def __init__(
        self, before: Callable[[Any], object] | None = None, *, after: Callable[[Any], object] | None = None
    ) -> None:
        self._before, self._after = before, after

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Check the call, and the returned connection."""
        return await self._look(call, rest.request)

    async def register(self, call: RegistryCall[Any], rest: RegistryHandler[Any]) -> Any:
        """Check the call, and the returned record."""
        return await self._look(call, rest.register)

    async def _look(self, call: Any, go_on: Callable[[Any], Awaitable[T]]) -> T:
        if self._before is not None:
            self._before(call)
        answer = await go_on(call)
        if self._after is not None:
            self._after(answer)
        return answer
