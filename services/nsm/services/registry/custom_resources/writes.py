"""Writes records as objects: the resource version decides between several who write at once."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from nsm.chains.core import Conflict, InvalidRequest, R, Refused, TimedOut, Unavailable
from nsm.kube import Key, Object, ObjectConflict, ObjectMissing, key_of

from .index import Index, is_leaving
from .names import object_name
from .objects import Form
from .place import Place
from .rules import Rules

T = TypeVar("T")

_TRIES = 20
"""How often a write is tried that others come before."""
_STEP = 0.01
"""Seconds by which the pause before another try may grow: a random one, so that two replicas do not go on in step."""
_SEEN_WITHIN = 1.0
"""Seconds that a write waits for the watch to tell of it: who asks next here finds it."""
_REMEMBERED = 30.0
"""Seconds that a write which failed or was not told of, and none since that was, means that the API server is away."""
_PATIENCE = 1.0
"""Seconds that an API server may take for a write: a caller that gives less and gives up says nothing of the server."""


class Writes(Generic[R]):
    """Register and unregister in the objects of `place`, as the rules allow.

    What is there is looked up in the index first. The API server is asked if that turns out to be old, and before a
    call is answered without a write: there is nothing to change, or it is refused for what is there. Calls for one name
    take turns here, so that only other replicas can come between.
    """

    def __init__(self, place: Place, form: Form[R], rules: Rules[R], index: Index[R]) -> None:
        self._api, self._namespace = place.api, place.namespace
        self._form, self._rules, self._index = form, rules, index
        self._failed_at = self._wrote_at = -math.inf
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    @property
    def fail(self) -> bool:
        """Whether the API server cannot be written to, or does not tell of what was written, for all that we know."""
        now = asyncio.get_running_loop().time()
        return self._wrote_at < self._failed_at and now - self._failed_at < _REMEMBERED

    async def register(self, record: R, within: float | None) -> R:
        """Write `record` over what is there, in so many seconds; returns it as it now stands.

        Raises `Refused` or `Conflict` by the rules, `InvalidRequest`, `Unavailable`, `TimedOut`.
        """
        return await self._in_time(self._write(record), within, record.name)

    async def unregister(self, record: R, within: float | None) -> None:
        """Delete the object of `record`, if there is one. Raises as `register` does."""
        await self._in_time(self._delete(record), within, record.name)

    async def remove(self, held: Object) -> None:
        """Delete that very version of an object. Raises `ObjectConflict`, `ObjectMissing`."""
        namespace, name = key_of(held)
        version = held["metadata"]["resourceVersion"]
        await self._api.delete(self._form.resource, name, namespace, version=version)

    async def _in_time(self, work: Awaitable[T], within: float | None, name: str) -> T:
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(within):
                return await work
        except TimeoutError:
            if now() - began >= _PATIENCE and self._wrote_at < began:
                self._failed_at = now()
            raise TimedOut(f"the API server did not store {name!r} in the caller's time") from None
        except Unavailable:
            self._failed_at = now()
            raise

    async def _write(self, record: R) -> R:
        key = self._key_of(record)
        async with self._turns.setdefault(key, asyncio.Lock()):
            return await self._write_at(key, record)

    async def _write_at(self, key: Key, record: R) -> R:
        held = self._index.at(key)
        if held is not None and self._needs_no_write(record, held):
            held = await self._fetch(key)
        for tries in range(_TRIES):
            if held is not None and is_leaving(held):
                raise _kept(held)
            there = self._record_of(record, held)
            wanted = self._rules.merged(record, there)
            if wanted is None:
                assert there is not None
                return there
            body = self._sound(self._form.to_object(wanted, self._namespace, held))
            try:
                written = await self._put(body, is_new=held is None)
            except ObjectConflict:
                held = await self._fetch_after(tries, key)
            except ObjectMissing:
                if held is None:
                    raise  # the kind, or the namespace
                held = None
            else:
                if await self._index.seen(written, _SEEN_WITHIN):
                    self._wrote_at = asyncio.get_running_loop().time()
                else:
                    self._failed_at = asyncio.get_running_loop().time()
                return self._form.from_object(written)
        raise Conflict(f"{record.name!r} was changed by others {_TRIES} times while it was to be registered")

    def _needs_no_write(self, record: R, held: Object) -> bool:
        """Whether nothing would be written over `held`; an older version cannot be noticed by writing then."""
        try:
            return self._rules.merged(record, self._record_of(record, held)) is None
        except (Refused, Conflict):
            return True

    def _sound(self, body: Object) -> Object:
        """The object itself. What nobody would take out of it again is not written: a time beyond all calendars."""
        try:
            self._form.from_object(body)
        except ValueError as error:
            raise InvalidRequest(f"{key_of(body)[1]!r} cannot be registered: {error}") from None
        return body

    async def _put(self, body: Object, *, is_new: bool) -> Object:
        if is_new:
            return await self._api.create(self._form.resource, body, self._namespace)
        return await self._api.replace(self._form.resource, body)

    async def _delete(self, record: R) -> None:
        key = self._key_of(record)
        async with self._turns.setdefault(key, asyncio.Lock()):
            await self._delete_at(key, record)

    async def _delete_at(self, key: Key, record: R) -> None:
        held = self._index.at(key)
        if held is None or self._needs_no_delete(record, held):
            held = await self._fetch(key)
        for tries in range(_TRIES):
            if held is None or not self._may_go(record, held):
                return
            try:
                await self.remove(held)
            except ObjectConflict:
                held = await self._fetch_after(tries, key)
            except ObjectMissing:
                return
            else:
                await self._index.gone(held, _SEEN_WITHIN)
                return
        raise Conflict(f"{record.name!r} was changed by others {_TRIES} times while it was to be unregistered")

    def _needs_no_delete(self, record: R, held: Object) -> bool:
        """Whether `held` would be left there, as `_needs_no_write` for an Unregister."""
        try:
            return not self._may_go(record, held)
        except (Refused, Conflict):
            return True

    def _may_go(self, record: R, held: Object) -> bool:
        there = self._record_of(record, held)
        return there is None or self._rules.may_go(record, there)

    async def _fetch_after(self, tries: int, key: Key) -> Object | None:
        """What somebody else has written, once they may be done."""
        await asyncio.sleep(random.uniform(0, _STEP * tries))  # noqa: S311 - no secret
        return await self._fetch(key)

    async def _fetch(self, key: Key) -> Object | None:
        try:
            return await self._api.get(self._form.resource, key[1], key[0])
        except ObjectMissing:
            return None

    def _key_of(self, record: R) -> Key:
        return self._namespace, object_name(record.name)

    def _record_of(self, record: R, held: Object | None) -> R | None:
        """The record in `held`; None if there is none in it: it may be written over then.

        An object that cannot be read as a whole may say which clients go where. It counts as what it was before; if
        that is not known here it is not written over.
        """
        if held is None:
            return None
        try:
            there = self._index.record_in(held)
        except ValueError as error:
            before = self._index.before(key_of(held))
            if before is not None or self._form.is_extensible or not isinstance(held.get("spec"), dict):
                return before
            raise Conflict(
                f"the object {key_of(held)[1]!r} of that name cannot be read, and is not written over: {error}; "
                "correct it, or delete it"
            ) from None
        if there.name != record.name:
            raise Conflict(
                f"the object {key_of(held)[1]!r} is that of {there.name!r}, not of {record.name!r}; "
                "delete it, or mend its spec.name"
            )
        return there


def _kept(held: Object) -> Conflict:
    namespace, name = key_of(held)
    finalizers = ", ".join(held["metadata"].get("finalizers") or ())
    return Conflict(f"the object {name!r} in {namespace!r} is being deleted and waits for its finalizers: {finalizers}")
