"""The registry's store in custom resources: stands last in a chain, where `Memory` stands in a registry of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from random import uniform
from types import TracebackType
from typing import TypeVar

from nsm.apis import codec
from nsm.chains.core import (
    Conflict,
    Found,
    InvalidRequest,
    MeshError,
    R,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Tasks,
    TimedOut,
    Unavailable,
)
from nsm.chains.logs import log
from nsm.chains.registry.authorize import origin
from nsm.chains.registry.memory import Memory
from nsm.kube import Api, Key, Object, ObjectConflict, ObjectMissing, Reflector, key_of, warn

from .index import Index
from .names import object_name
from .objects import Form
from .rules import Rules

T = TypeVar("T")

_TRIES = 8
"""How often a write is tried that others come before."""
_SEEN_WITHIN = 1.0
"""Seconds that a Register waits for the watch to tell what it wrote: who asks next here finds it."""
_SPREAD = 2.0
"""Replicas delete what has ended at a random moment within so many seconds: one of them does, the others hear of it."""
_AGAIN = 10.0
"""Seconds until a deletion is tried again that failed."""
_AT_ONCE = 8
"""Deletions at the same time."""
_REMEMBERED = 30.0
"""Seconds that a write which failed, and none that succeeded since, means that the API server is away."""


@dataclass(frozen=True)
class Place:
    """Where the objects are written, and the name under which events about them are reported."""

    api: Api
    namespace: str
    component: str


class CustomResources(RegistryElement[R]):
    """Keep the records in custom resources of `place`; Find answers from what the watch has told.

    Between entering and leaving it keeps up with the cluster. An API server that is away fails Register and Unregister
    with `Unavailable`; Find answers with what was known.
    """

    def __init__(self, place: Place, form: Form[R], rules: Rules[R], *, lifetime: float) -> None:
        self._api, self._namespace, self._component = place.api, place.namespace, place.component
        self._form, self._rules = form, rules
        self._tasks = Tasks(f"store of {form.resource}")
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._failed_at = -math.inf
        self._reflector = Reflector(place.api, form.resource)
        self.index: Index[R] = Index(
            form,
            place.namespace,
            lifetime=lifetime,
            is_cut_off=self._is_cut_off,
            over=self._collect,
            complain=self._complain,
        )
        self._memory = Memory(self.index.records)

    async def __aenter__(self) -> CustomResources[R]:
        self._reflector.on_change(self.index.hear)
        await self._reflector.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reflector.__aexit__(kind, error, trace)
        await self._tasks.aclose()
        self.index.close()

    async def synced(self) -> None:
        """Wait until what is in the cluster is known."""
        await self._reflector.synced()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Write what the rest of the chain accepted."""
        if not call.record.name:
            raise InvalidRequest(f"the {type(call.record).__name__} has no name")
        record = _with_its_origin(await rest.register(call), call)
        return self._form.from_object(await self._in_time(call, self._write(record)))

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """What matches; a watch goes on."""
        async for batch in self._memory.find(call, rest):
            yield batch

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Delete it."""
        await rest.unregister(call)
        await self._in_time(call, self._delete(_with_its_origin(call.record, call)))

    async def _in_time(self, call: RegistryCall[R], work: Awaitable[T]) -> T:
        """Do `work` within the caller's time, and note if the API server cannot be written to."""
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(call.remaining()):
                return await work
        except TimeoutError:
            self._failed_at = now()
            raise TimedOut(f"the API server did not store {call.record.name!r} in the caller's time") from None
        except Unavailable:
            self._failed_at = now()
            raise

    def _is_cut_off(self) -> bool:
        """Whether endpoints cannot refresh what they have registered, for all that we know."""
        return self._reflector.trouble is not None or asyncio.get_running_loop().time() - self._failed_at < _REMEMBERED

    async def _write(self, record: R) -> Object:
        """Write `record` over what is there, as the rules allow; returns the object as it now stands."""
        key = self._key_of(record)
        held = self.index.at(key)
        for _ in range(_TRIES):
            wanted = self._rules.merged(record, self._record_of(record, held))
            if wanted is None:
                assert held is not None
                return held
            body = self._form.to_object(wanted, self._namespace, held)
            try:
                written = await self._put(body, held)
            except ObjectConflict:
                held = await self._fetch(key)
                continue
            except ObjectMissing:
                if held is None:
                    raise  # the kind, or the namespace
                held = None
                continue
            await self.index.seen(written, _SEEN_WITHIN)
            return written
        raise Conflict(f"{record.name!r} was changed by others {_TRIES} times while it was to be registered")

    async def _put(self, body: Object, held: Object | None) -> Object:
        if held is None:
            written = await self._api.create(self._form.resource, body, self._namespace)
        else:
            written = await self._api.replace(self._form.resource, body)
        self._failed_at = -math.inf
        return written

    async def _delete(self, record: R) -> None:
        key = self._key_of(record)
        held = self.index.at(key) or await self._fetch(key)
        for _ in range(_TRIES):
            there = None if held is None else self._record_of(record, held)
            if held is None or (there is not None and not self._rules.may_go(record, there)):
                return
            try:
                await self._remove(held)
            except ObjectConflict:
                held = await self._fetch(key)
                continue
            except ObjectMissing:
                return
            await self.index.gone(held, _SEEN_WITHIN)
            return
        raise Conflict(f"{record.name!r} was changed by others {_TRIES} times while it was to be unregistered")

    async def _remove(self, held: Object) -> None:
        """Delete that very version of an object."""
        namespace, name = key_of(held)
        version = held["metadata"]["resourceVersion"]
        await self._api.delete(self._form.resource, name, namespace, version=version)

    async def _fetch(self, key: Key) -> Object | None:
        try:
            return await self._api.get(self._form.resource, key[1], key[0])
        except ObjectMissing:
            return None

    def _key_of(self, record: R) -> Key:
        return self._namespace, object_name(record.name)

    def _record_of(self, record: R, held: Object | None) -> R | None:
        """The record in `held`; None if there is none in it: it may be written over then."""
        if held is None:
            return None
        try:
            there = self._form.from_object(held)
        except ValueError:
            return None
        if there.name != record.name:
            raise Conflict(f"the object {key_of(held)[1]!r} is that of {there.name!r}, not of {record.name!r}")
        return there

    def _collect(self, over: Object) -> None:
        namespace, name = key_of(over)
        if namespace == self._namespace:  # others have a registry of their own
            self._tasks.spawn(self._collect_soon(over), name=f"collect {name}")

    async def _collect_soon(self, over: Object) -> None:
        await asyncio.sleep(uniform(0, _SPREAD))  # noqa: S311 - no secret
        while self.index.at(key_of(over)) is over:
            try:
                async with self._slots:
                    await self._remove(over)
                return
            except (ObjectConflict, ObjectMissing):  # it came again, or another replica was first
                return
            except MeshError as error:
                log.warning("cannot delete what has ended", name=key_of(over)[1], error=str(error))
            await asyncio.sleep(_AGAIN)

    def _complain(self, about: Object, fault: str) -> None:
        namespace, name = key_of(about)
        message = f"this is no {self._form.resource.kind} and is ignored: {fault}"
        log.warning("object ignored", kind=self._form.resource.kind, namespace=namespace, name=name, fault=fault)
        work = warn(
            self._api, self._form.resource, about, component=self._component, reason="Malformed", message=message
        )
        self._tasks.spawn(work, name=f"event of {name}")


def _with_its_origin(record: R, call: RegistryCall[R]) -> R:
    """A copy whose first identity is the one that signed the first token: what a caller writes there proves nothing."""
    copy = codec.clone(record)
    if subject := origin(call):
        copy.path_ids[:1] = [subject]
    return copy
