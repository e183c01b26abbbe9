"""A registry's records in memory, indexed, with watchers that never block anyone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import Generic

from nsm.apis import codec
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Found, R, RegistryCall, RegistryElement, RegistryHandler, Unavailable, counts
from nsm.chains.model.matching import endpoint_matches, service_matches

WATCH_LAG = counts.Spread(
    "nsm_registry_watch_lag_seconds", "From a change of a record until a watch of it is told", "kind"
)
MOST_AT_ONCE = 64
"""The most records in one batch of a watch: a hundred watchers that begin at once leave time for others."""


class Records(Generic[R]):
    """Records by name, and endpoints by the services that they provide.

    Stored records are shared with everyone who finds them: copy a record before changing it.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, R] = {}
        self._by_service: dict[str, dict[str, R]] = {}
        self._watchers: set[_Watcher[R]] = set()
        self._listeners: list[Callable[[Found[R]], None]] = []

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def watches(self) -> int:
        """The number of watches."""
        return len(self._watchers)

    def get(self, name: str) -> R | None:
        """The record of that exact name."""
        return self._by_name.get(name)

    def put(self, record: R) -> None:
        """Store `record` under its name; watchers whose query it matches are notified."""
        before = self._by_name.get(record.name)
        if before is not None:
            self._unindex(before)
        self._by_name[record.name] = record
        for service in _services_of(record):
            self._by_service.setdefault(service, {})[record.name] = record
        self._tell(Found(record), before)

    def pop(self, name: str) -> R | None:
        """Remove a record; watchers are notified."""
        record = self._by_name.pop(name, None)
        if record is not None:
            self._unindex(record)
            self._tell(Found(record, deleted=True), record)
        return record

    def end(self, why: str) -> None:
        """End all watches with `Unavailable`."""
        for watcher in self._watchers:
            watcher.end(why)

    def listen(self, listener: Callable[[Found[R]], None]) -> None:
        """Call `listener` with each change."""
        self._listeners.append(listener)

    def matching(self, query: R) -> list[R]:
        """The records that match `query`, in order of arrival."""
        return [record for record in self._candidates(query) if matches(query, record)]

    def has(self, query: R) -> bool:
        """Whether any record matches `query`."""
        return any(matches(query, record) for record in self._candidates(query))

    async def watch(self, query: R) -> AsyncIterator[Sequence[Found[R]]]:
        """The current matches, then all changes, in batches of at most `MOST_AT_ONCE`.

        A slow reader receives the latest state of each record, not every step, and nothing about a record that was
        added and removed in the meantime. A record that no longer matches is reported as deleted. Raises `Unavailable`
        after `end`.
        """
        watcher = _Watcher(query, self.matching(query))
        self._watchers.add(watcher)
        try:
            yield watcher.take()
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)

    def _candidates(self, query: R) -> Iterable[R]:
        if query.name:
            record = self._by_name.get(query.name)
            return [record] if record is not None else []
        services = list(_services_of(query))
        if services:
            return self._by_service.get(services[0], {}).values()
        return self._by_name.values()

    def _unindex(self, record: R) -> None:
        for service in _services_of(record):
            providers = self._by_service.get(service)
            if providers is not None:
                providers.pop(record.name, None)
                if not providers:
                    del self._by_service[service]

    def _tell(self, found: Found[R], before: R | None) -> None:
        for listener in self._listeners:
            listener(found)
        for watcher in self._watchers:
            watcher.notify(found, before)


class Memory(RegistryElement[R]):
    """The registry's store; place it last. Find answers from it, then continues with the rest of the chain."""

    def __init__(self, records: Records[R] | None = None) -> None:
        self.records: Records[R] = records if records is not None else Records()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Store the record once the rest of the chain has accepted it."""
        record = await rest.register(call)
        self.records.put(codec.clone(record))
        return record

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """The matches; a watch continues."""
        if call.watch:
            async for batch in self.records.watch(call.record):
                yield batch
            return
        found = [Found(record) for record in self.records.matching(call.record)]
        for start in range(0, len(found) or 1, MOST_AT_ONCE):
            yield found[start : start + MOST_AT_ONCE]
        async for batch in rest.find(call):
            yield batch

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Remove the record."""
        self.records.pop(call.record.name)
        await rest.unregister(call)


class _Watcher(Generic[R]):
    """The unread changes of one reader: the latest state of each name.

    What has been read is not kept: a watch of ten thousand records costs nothing while nothing changes.
    """

    def __init__(self, query: R, now: Iterable[R]) -> None:
        self._query = query
        self._news: dict[str, R | Found[R]] = {record.name: record for record in now}
        """By name; as records those that are new to the reader."""
        self._wake = asyncio.Event()
        self._ended: str | None = None
        self._unread_since = 0.0
        """When the oldest unread change was made; 0: there is none, or it belongs to the first state."""

    def end(self, why: str) -> None:
        self._ended = why
        self._wake.set()

    def notify(self, found: Found[R], before: R | None) -> None:
        """A record changed from `before`."""
        name, matched = found.record.name, before is not None and matches(self._query, before)
        if found.deleted or not matches(self._query, found.record):
            if not matched:
                return
            found = Found(found.record, deleted=True)
        unread = self._news.pop(name, None)
        is_new = not matched if unread is None else not isinstance(unread, Found)
        if found.deleted and is_new:
            return
        self._news[name] = found.record if is_new else found
        self._unread_since = self._unread_since or monotonic()
        self._wake.set()

    async def next(self) -> list[Found[R]]:
        while not self._news and self._ended is None:
            self._wake.clear()
            await self._wake.wait()
        if self._ended is not None:
            raise Unavailable(self._ended)
        return self.take()

    def take(self) -> list[Found[R]]:
        """The next batch of changes, which then count as known to the reader."""
        batch = [self._news.pop(name) for name in [*islice(self._news, MOST_AT_ONCE)]]
        if not self._news:
            self._news = {}  # one that was emptied keeps its size
            if self._unread_since:
                WATCH_LAG.observe(monotonic() - self._unread_since, _kind(self._query))
                self._unread_since = 0.0
        return [each if isinstance(each, Found) else Found(each) for each in batch]


def matches(query: R, record: R) -> bool:
    """Whether a Find with `query` returns `record`."""
    if isinstance(query, NetworkServiceEndpoint) and isinstance(record, NetworkServiceEndpoint):
        return endpoint_matches(query, record)
    assert isinstance(query, NetworkService)
    assert isinstance(record, NetworkService)
    return service_matches(query, record)


def _kind(query: NetworkService | NetworkServiceEndpoint) -> str:
    return "endpoints" if isinstance(query, NetworkServiceEndpoint) else "services"


def _services_of(record: NetworkService | NetworkServiceEndpoint) -> Iterable[str]:
    return dict.fromkeys(record.network_service_names) if isinstance(record, NetworkServiceEndpoint) else ()
