"""What the watch has told so far, as records: those that Find answers from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, cast

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import Limits, R
from nsm.chains.logs import log
from nsm.chains.model.record_limits import MOST_HOPS, excess
from nsm.chains.registry.memory import Records
from nsm.kube import Change, Key, Object, key_of

from .names import object_name
from .objects import Form

_LIMITS = Limits()


@dataclass(slots=True)
class _Held(Generic[R]):
    """An object and the record in it."""

    object: Object
    record: R
    timer: asyncio.TimerHandle | None = None


class Index(Generic[R]):
    """The records of the cluster's objects, for as long as they live.

    Objects of all namespaces count, as upstream's registry reads them; if two hold records of one name, that of
    `namespace` is it, and there the one that is called like the record. A record goes when its time is over and `over`
    hears of it: that one deletes the object.

    While the API server is away nobody can refresh what is registered, so nothing ends then: a record that would is
    given another `lifetime` seconds for as long as `is_cut_off` says so.

    An object that holds no record, or one that is larger than `limits` allow, is told to `complain`, and counts as what
    it was before. One that was deleted and is
    only kept there by somebody's finalizers counts no more.
    """

    def __init__(
        self,
        form: Form[R],
        namespace: str,
        *,
        lifetime: float,
        limits: Limits = _LIMITS,
        is_cut_off: Callable[[], bool],
        over: Callable[[Object], None],
        complain: Callable[[Object, str], None],
    ) -> None:
        self.records: Records[R] = Records()
        self._form, self._namespace, self._lifetime, self._limits = form, namespace, lifetime, limits
        self._is_cut_off, self._over, self._complain = is_cut_off, over, complain
        self._held: dict[Key, _Held[R]] = {}
        self._named: dict[str, set[Key]] = {}
        self._awaited: dict[Key, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """How many objects hold records, also such as have ended."""
        return len(self._held)

    def at(self, key: Key) -> Object | None:
        """The object of that key, as it was told last with a record in it."""
        held = self._held.get(key)
        return None if held is None else held.object

    def record_in(self, found: Object) -> R:
        """The record in an object, with the time that it was given here. Raises ValueError if there is none in it."""
        held = self._held.get(key_of(found))
        if held is not None and _version(held.object) == _version(found):
            return held.record
        return self._form.from_object(found)

    def before(self, key: Key) -> R | None:
        """The record that was read last from the object of that key, if any ever was."""
        held = self._held.get(key)
        return None if held is None else held.record

    def hear(self, change: Change) -> None:
        """Take in what a reflector tells."""
        if change.now is None or is_leaving(change.now):
            self._drop(change.key)
        else:
            self._take(change.now)
        for waiting in self._awaited.pop(change.key, ()):
            if not waiting.done():
                waiting.set_result(None)

    async def seen(self, written: Object, timeout: float) -> bool:
        """Wait until the watch has told of `written`, or of what came after it; whether it did within `timeout` s."""
        return await self._until(key_of(written), lambda key: _version(self.at(key)) >= _version(written), timeout)

    async def gone(self, deleted: Object, timeout: float) -> bool:
        """Wait until the watch has told that `deleted` is no more; whether it did within `timeout` seconds."""
        uid = deleted["metadata"].get("uid")

        def is_gone(key: Key) -> bool:
            there = self.at(key)
            return there is None or there["metadata"].get("uid") != uid

        return await self._until(key_of(deleted), is_gone, timeout)

    def close(self) -> None:
        """Stop all clocks."""
        for held in self._held.values():
            _stop(held)

    def _take(self, now: Object) -> None:
        key = key_of(now)
        try:
            record = self._form.from_object(now)
            self._check_size(record)
        except ValueError as error:
            self._complain(now, str(error))
            return
        before = self._held.get(key)
        if before is not None and before.record.name != record.name:
            self._drop(key)
        elif before is not None:
            _stop(before)
        self._held[key] = held = _Held(now, record)
        self._named.setdefault(record.name, set()).add(key)
        self._set_clock(key, held)
        self._choose(record.name)

    def _check_size(self, record: R) -> None:
        if (fault := excess(record, self._limits, hops=MOST_HOPS)) is not None:
            raise ValueError(f"it is too large: {fault.text}")

    def _drop(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        _stop(held)
        keys = self._named[held.record.name]
        keys.discard(key)
        if not keys:
            del self._named[held.record.name]
        self._choose(held.record.name)

    def _choose(self, name: str) -> None:
        """Let Find answer with the best of the live records of that name, if there is one."""
        live = [key for key in self._named.get(name, ()) if is_live(self._held[key].record)]
        if live:
            usual = object_name(name)  # a person may have copied it: that is not what is written to
            best = min(live, key=lambda key: (key[0] != self._namespace, key[1] != usual, key))
            chosen = self._held[best].record
            if self.records.get(name) is not chosen:
                self.records.put(chosen)
        else:
            self.records.pop(name)

    def _set_clock(self, key: Key, held: _Held[R]) -> None:
        expires = expiration_of(held.record)
        if expires is not None:
            held.timer = asyncio.get_running_loop().call_later(max(0.0, expires - time.time()), self._ends, key)

    def _ends(self, key: Key) -> None:
        held = self._held[key]
        if self._is_cut_off():
            held.record = _prolonged(held.record, self._lifetime)
            self._set_clock(key, held)
        elif is_live(held.record):  # a timer may be early by the clock's grain
            self._set_clock(key, held)
        else:
            log.info("registration has ended", name=held.record.name)
            self._over(held.object)
        self._choose(held.record.name)

    async def _until(self, key: Key, condition: Callable[[Key], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not condition(key):
                    await self._change_of(key)
        except TimeoutError:
            return False
        return True

    async def _change_of(self, key: Key) -> None:
        waiting = asyncio.get_running_loop().create_future()
        together = self._awaited.setdefault(key, set())
        together.add(waiting)
        try:
            await waiting
        finally:
            together.discard(waiting)
            if not together and self._awaited.get(key) is together:
                del self._awaited[key]


def expiration_of(record: object) -> float | None:
    """When the record ends, in seconds since the epoch; None: never."""
    expires = record.expiration_time if isinstance(record, NetworkServiceEndpoint) else None
    return None if expires is None else expires.to_seconds()


def is_live(record: object) -> bool:
    """Whether the record has not ended."""
    expires = expiration_of(record)
    return expires is None or expires > time.time()


def is_leaving(found: Object) -> bool:
    """Whether the object was deleted, and waits for its finalizers: nothing brings it back."""
    return "deletionTimestamp" in found["metadata"]


def _prolonged(record: R, seconds: float) -> R:
    """A copy that lives `seconds` from now. What others have found is not changed."""
    copy = codec.clone(record)
    cast(NetworkServiceEndpoint, copy).expiration_time = Timestamp.from_seconds(time.time() + seconds)
    return copy


def _version(found: Object | None) -> int:
    """Versions of one kind of object grow."""
    return 0 if found is None else int(found["metadata"].get("resourceVersion") or 0)


def _stop(held: _Held[R]) -> None:
    if held.timer is not None:
        held.timer.cancel()
