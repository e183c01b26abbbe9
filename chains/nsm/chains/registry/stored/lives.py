"""The lifetimes of records."""

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
        """When it expires, in seconds since the epoch; None: never."""
        ...

    def is_needed(self, record: R) -> bool:
        """Whether it stays although it has expired."""
        ...

    def is_due(self, entry: Entry[R]) -> bool:
        """Whether a Register without changes must be written, to renew the lifetime."""
        ...

    def prolonged(self, entry: Entry[R]) -> Entry[R]:
        """A copy that lives another lifetime from now. Records that callers have found are not changed."""
        ...


class EndpointLives(Lives[NetworkServiceEndpoint]):
    """An endpoint lives until its `expiration_time`; `lifetime` seconds longer while it cannot be renewed."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime

    def ends(self, entry: Entry[NetworkServiceEndpoint]) -> float | None:
        """Its expiration time."""
        expires = entry.record.expiration_time if entry.record is not None else None
        return None if expires is None else expires.to_seconds()

    def is_needed(self, record: NetworkServiceEndpoint) -> bool:
        """Never: an endpoint that does not renew its registration is gone."""
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
    """A service lives `lifetime` seconds after its last write, and as long as an endpoint provides it; 0: forever.

    If the backend does not store the time of writes, it lives forever.
    """

    def __init__(self, lifetime: float, is_provided: Callable[[str], bool]) -> None:
        self._lifetime, self._is_provided = lifetime, is_provided

    def ends(self, entry: Entry[NetworkService]) -> float | None:
        """`lifetime` after it was written."""
        return entry.renewed + self._lifetime if entry.renewed and self._lifetime else None

    def is_needed(self, record: NetworkService) -> bool:
        """While an endpoint provides it."""
        return self._is_provided(record.name)

    def is_due(self, entry: Entry[NetworkService]) -> bool:
        """After a tenth of its lifetime, so that not every client's Register is written."""
        ends = self.ends(entry)
        return ends is not None and ends - time.time() < 0.9 * self._lifetime

    def prolonged(self, entry: Entry[NetworkService]) -> Entry[NetworkService]:
        """As if it had been written now."""
        return replace(entry, renewed=time.time())


def is_live(ends: float | None) -> bool:
    """Whether that time is in the future."""
    return ends is None or ends > time.time()
