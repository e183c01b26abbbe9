"""The algebra of registry chains: like `chain`, with register, find and unregister.

Elements are generic over the two kinds of record, network services and endpoints; what differs between the kinds is
in one value of `Kind`. An answer to Find is a stream of batches: the first has what is known now, and a watch
continues with a batch for each change.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from nsm.apis import codec
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.errors import InvalidRequest, MeshError

from .call import DEFAULT_TIMEOUT, Hop
from .chain import element_name, leaves_out
from .tracing import traced, traced_stream

R = TypeVar("R", bound="NetworkService | NetworkServiceEndpoint")


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """One record of an answer to Find; `deleted` means that it no longer exists."""

    record: R
    deleted: bool = False


@dataclass(slots=True)
class RegistryPath:
    """The tokens of the components that a Register or Unregister passed, outermost first, and the index of this one.

    Travels as metadata ``path``: ``{"Index":1,"PathSegments":[{"token":"..."}]}``, in the request and, as response
    header, in the answer.
    """

    index: int = 0
    tokens: list[str] = field(default_factory=list)

    def to_metadata(self) -> str:
        """The JSON form."""
        segments = [{"token": token} for token in self.tokens] or None
        return json.dumps({"Index": self.index, "PathSegments": segments}, separators=(",", ":"))

    @classmethod
    def from_metadata(cls, text: str) -> RegistryPath:
        """Read the JSON form; key names in any case. Raises `InvalidRequest`."""
        try:
            raw = _lower_keys(json.loads(text))
            segments = [_lower_keys(segment) for segment in raw.get("pathsegments") or []]
            return cls(_index(raw.get("index", 0)), [_token(segment.get("token", "")) for segment in segments])
        except RecursionError:
            raise InvalidRequest("the metadata 'path' is not a registry path: it is nested too deeply") from None
        except (ValueError, TypeError, AttributeError):
            raise InvalidRequest(
                'the metadata \'path\' is not a registry path such as {"Index":0,"PathSegments":[{"token":".."}]}'
            ) from None

    def copy(self) -> RegistryPath:
        """A deep copy."""
        return RegistryPath(self.index, list(self.tokens))


def _index(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_SEGMENTS:
        raise ValueError("no index")
    return value


def _token(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise TypeError("no token")
    return value


_MOST_SEGMENTS = 64
"""Components that a registration may pass; real ones pass three, or some more between domains."""


def _lower_keys(raw: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in raw.items()}


@dataclass(slots=True)
class RegistryCall(Hop, Generic[R]):
    """One Register, Find or Unregister; for Find `record` is the query that an answer must match.

    `path` is the path that the call brought; elements change it in place, and the result is sent back.
    """

    record: R
    watch: bool = False
    path: RegistryPath = field(default_factory=RegistryPath)

    def onward(self) -> RegistryCall[R]:
        """The call that a client chain makes on behalf of this one; it shares store, undo and path."""
        return RegistryCall(
            codec.clone(self.record),
            self.watch,
            self.path,
            deadline=self.deadline,
            target=self.target,
            store=self.store,
            undo=self.undo,
        )

    def postponed(self) -> RegistryCall[R]:
        """A copy with a fresh deadline of the usual length: for cleaning up after this call has failed."""
        deadline = asyncio.get_running_loop().time() + DEFAULT_TIMEOUT
        record, path = codec.clone(self.record), self.path.copy()
        return RegistryCall(record, self.watch, path, deadline=deadline, target=self.target, store=self.store)


class RegistryHandler(Protocol[R]):
    """Anything that answers Register, Find and Unregister for one kind of record."""

    async def register(self, call: RegistryCall[R], /) -> R:
        """Register or refresh `call.record`; returns the resulting record."""
        ...

    def find(self, call: RegistryCall[R], /) -> AsyncIterator[Sequence[Found[R]]]:
        """The records that match the query, in batches; with `call.watch` it continues until the caller stops."""
        ...

    async def unregister(self, call: RegistryCall[R], /) -> None:
        """Remove `call.record`."""
        ...


class RegistryElement(Generic[R]):
    """One link of a registry chain; the defaults pass on. See `Element`."""

    @property
    def name(self) -> str:
        """The name that errors and spans show."""
        return element_name(type(self))

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Do this element's part of a Register."""
        return await rest.register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Do this element's part of a Find; usually an async generator over `rest.find(call)`."""
        return rest.find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Do this element's part of an Unregister and await `rest.unregister(call)`, whatever happens."""
        await rest.unregister(call)

    async def aclose(self) -> None:
        """Release what the element holds; called once when the service stops."""


class RegistryEnd(Generic[R]):
    """The end of a registry chain: the record is accepted as it arrived, nothing is found."""

    async def register(self, call: RegistryCall[R]) -> R:
        """Return the record as the elements left it."""
        return call.record

    async def find(self, call: RegistryCall[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Find nothing."""
        return
        yield

    async def unregister(self, call: RegistryCall[R]) -> None:
        """Nothing is left to do."""


class RegistryChain(Generic[R]):
    """A list of registry elements, bound to each other; itself a `RegistryHandler`. See `Chain`."""

    def __init__(self, elements: Sequence[RegistryElement[R]], end: RegistryHandler[R] | None = None) -> None:
        self.elements = tuple(elements)
        first: RegistryHandler[R] = end or RegistryEnd()
        for element in reversed(self.elements):
            first = _Step(element, first)
        self.register, self.find, self.unregister = first.register, first.find, first.unregister

    async def __aenter__(self) -> RegistryChain[R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the elements, last first."""
        for element in reversed(self.elements):
            await element.aclose()


class _Step(Generic[R]):
    def __init__(self, element: RegistryElement[R], rest: RegistryHandler[R]) -> None:
        self._element, self._rest, self._name = element, rest, element.name
        skips = partial(leaves_out, element, RegistryElement)
        self.register = rest.register if skips("register") else traced(self._name, "Register", self._register)
        self.find = rest.find if skips("find") else traced_stream(self._name, "Find", self._find)
        self.unregister = rest.unregister if skips("unregister") else traced(self._name, "Unregister", self._unregister)

    async def _register(self, call: RegistryCall[R]) -> R:
        try:
            return await self._element.register(call, self._rest)
        except MeshError as error:
            error.raised_in(self._name)
            raise

    async def _find(self, call: RegistryCall[R]) -> AsyncIterator[Sequence[Found[R]]]:
        try:
            async for batch in self._element.find(call, self._rest):
                yield batch
        except MeshError as error:
            error.raised_in(self._name)
            raise

    async def _unregister(self, call: RegistryCall[R]) -> None:
        try:
            await self._element.unregister(call, self._rest)
        except MeshError as error:
            error.raised_in(self._name)
            raise
