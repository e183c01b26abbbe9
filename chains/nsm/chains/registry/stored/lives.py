"""How long records live."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from nsm.apis import codec
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.apis.wellknown import Timestamp
from nsm.chains.core import R

from .backend import Entry


class Lives(Protocol[R]):
    """The lifetime of one kind of record."""

    def ends(self, entry: Entry[R]) -> float | None:
        """When it ends, in seconds since the epoch; None: never."""
        ...

    def is_needed(self, record: R) -> bool:
        """Whether it stays all the same when its time is over."""
        ...

    def is_due(self, entry: Entry[R]) -> bool:
        """Whether a Register that changes nothing has to be written, so that its time begins anew."""
        ...

    def prolonged(self, entry: Entry[R]) -> Entry[R]:
        """A copy that lives another lifetime from now. What others have found is not changed."""
        ...


class EndpointLives(Lives[NetworkServiceEndpoint]):
    """An endpoint lives until its `expiration_time`; `lifetime` seconds longer while nobody can renew it."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime

    def ends(self, entry: Entry[NetworkServiceEndpoint]) -> float | None:
        """Its expiration time."""
        expires = entry.record.expiration_time if entry.record is not None else None
        return None if expires is None else expires.to_seconds()

    def is_needed(self, record: NetworkServiceEndpoint) -> bool:
        """Never: an endpoint that does not come again is gone."""
        return False

    def is_due(self, entry: Entry[NetworkServiceEndpoint]) -> bool:
        """Never: its expiration time changes with each Register."""
        return False

    def prolonged(self, entry: Entry[NetworkServiceEndpoint]) -> Entry[NetworkServiceEndpoint]:
        """With a later expiration time."""
        assert entry.record is not None
        record = codec.clone(entry.record)
        record.expiration_time = Timestamp.from_seconds(time.time() + self._lifetime)
        return replace(entry, record=record)


class ServiceLives(Lives[NetworkService]):
    """A service lives `lifetime` seconds after it was written last, and as long as somebody provides it; 0: for ever.

    Where the backend does not keep when it was written it lives for ever.
    """

    def __init__(self, lifetime: float, is_provided: Callable[[str], bool]) -> None:
        self._lifetime, self._is_provided = lifetime, is_provided

    def ends(self, entry: Entry[NetworkService]) -> float | None:
        """Some time after it was written."""
        return entry.renewed + self._lifetime if entry.renewed and self._lifetime else None

    def is_needed(self, record: NetworkService) -> bool:
        """While an endpoint provides it."""
        return self._is_provided(record.name)

    def is_due(self, entry: Entry[NetworkService]) -> bool:
        """When a tenth of its time has passed: not each client's Register is written."""
        ends = self.ends(entry)
        return ends is not None and ends - time.time() < 0.9 * self._lifetime

    def prolonged(self, entry: Entry[NetworkService]) -> Entry[NetworkService]:
        """As if it had been written now."""
        return replace(entry, renewed=time.time())


def is_live(ends: float | None) -> bool:
    """Whether that moment is still to come."""
    return ends is None or ends > time.time()
