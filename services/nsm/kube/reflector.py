"""Follows the objects of one kind: list once, then watch forever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from random import uniform
from types import MappingProxyType, TracebackType

from nsm.chains.core import Backoff, MeshError, Tasks
from nsm.chains.logs import named

from .api import Api, WatchEvent
from .errors import Gone
from .resources import Key, Object, Resource, key_of

_log = named("nsm.kube")

_WATCH_SECONDS = 240.0, 300.0
"""The lifetime of one watch in seconds, chosen at random between the two to spread the load."""
_WORKED = 10.0
"""Seconds of a working watch after which the retry delay is reset."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object before and after: `before` is None if it is new, `now` is None if it was deleted."""

    before: Object | None
    now: Object | None

    @property
    def key(self) -> Key:
        """Namespace and name."""
        found = self.now or self.before
        assert found is not None
        return key_of(found)


Listener = Callable[[Change], None]


class Reflector:
    """The objects of `resource` in `namespace` (empty: in all namespaces), as the API server reports them.

    While open, it follows changes: a watch that ends is resumed, one whose version the server has forgotten restarts
    with a list, and a server that is down, slow or refuses is retried after 0.1 to 3.6 s. Known objects are kept
    meanwhile; after a restore of the server from a backup, they are listed again. `trouble` says why no changes arrive;
    it is None while the watch works.
    """

    def __init__(
        self, api: Api, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> None:
        self.resource, self.namespace = resource, namespace
        self.trouble: MeshError | None = None
        self._api, self._labels, self._fields = api, labels, fields
        self._objects: dict[Key, Object] = {}
        self._version = ""
        self._listed = asyncio.Event()
        self._listeners: list[Listener] = []
        self._tasks = Tasks(f"reflector of {resource}")

    @property
    def objects(self) -> Mapping[Key, Object]:
        """The objects by namespace and name, without `managedFields` (most of an object's size, and never needed).

        They are shared: copy an object before changing it.
        """
        return MappingProxyType(self._objects)

    @property
    def is_synced(self) -> bool:
        """Whether the objects have been listed once."""
        return self._listed.is_set()

    async def synced(self) -> None:
        """Wait until the objects have been listed once."""
        await self._listed.wait()

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each change from now on, in order; returns a function that removes the listener.

        It must not block. Exceptions in it are logged; other listeners are notified all the same.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def changes(self) -> AsyncIterator[Change]:
        """The current objects, one by one, and then each change.

        A slow reader receives, for each object, its state at the last read and now, not every step between.
        """
        news: dict[Key, Change] = {key: Change(None, found) for key, found in self._objects.items()}
        wake = asyncio.Event()

        def listener(change: Change) -> None:
            earlier = news.pop(change.key, None)
            merged = Change(earlier.before if earlier else change.before, change.now)
            if not (merged.before is None and merged.now is None):
                news[change.key] = merged
            wake.set()

        stop = self.on_change(listener)
        try:
            while True:
                while news:
                    yield news.pop(next(iter(news)))
                wake.clear()
                await wake.wait()
        finally:
            stop()

    async def __aenter__(self) -> Reflector:
        self._tasks.spawn(self._keep_up(), name=f"watch {self.resource}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()

    async def _keep_up(self) -> None:
        clock, waits = asyncio.get_running_loop().time, Backoff(most=3.0)
        while True:
            began = clock()
            try:
                if self._version and self.trouble is not None and await self._is_set_back():
                    self._version = ""
                if not self._version:
                    await self._list()
                await self._watch()
            except Gone:
                self._version = ""
            except MeshError as error:
                self._fails(error)
            except Exception as error:  # a malformed object: start over
                self._version = ""
                _log.error("reflector failed", resource=str(self.resource), exc_info=error)
            if clock() - began > _WORKED:
                waits.reset()
            await asyncio.sleep(waits.next())

    async def _list(self) -> None:
        listing = await self._api.list(self.resource, self.namespace, labels=self._labels, fields=self._fields)
        self._works()
        there = {key_of(found): found for found in listing.objects}
        for key in self._objects.keys() - there.keys():
            self._set(key, None)
        for key, found in there.items():
            self._set(key, found)
        self._version = listing.version
        self._listed.set()

    async def _is_set_back(self) -> bool:
        """Whether the server's version is older than ours: it would accept such a watch and send nothing."""
        newest = await self._api.newest(self.resource, self.namespace, labels=self._labels, fields=self._fields)
        return int(newest) < int(self._version)

    async def _watch(self) -> None:
        watch = self._api.watch(
            self.resource,
            self.namespace,
            version=self._version,
            seconds=uniform(*_WATCH_SECONDS),  # noqa: S311 - no secret
            labels=self._labels,
            fields=self._fields,
        )
        async with watch as events:
            self._works()
            async for event in events:
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        if event.type != "BOOKMARK":
            self._set(key_of(event.object), None if event.type == "DELETED" else event.object)
        self._version = event.object["metadata"]["resourceVersion"]

    def _set(self, key: Key, now: Object | None) -> None:
        before = self._objects.get(key)
        if now is None:
            self._objects.pop(key, None)
        else:
            now["metadata"].pop("managedFields", None)
            self._objects[key] = now
        if _version_of(before) != _version_of(now):
            for listener in tuple(self._listeners):
                self._notify(listener, Change(before, now))

    def _notify(self, listener: Listener, change: Change) -> None:
        """Notify one listener; its defects must not affect others, because each change is reported only once."""
        try:
            listener(change)
        except Exception as error:
            _log.error("reader failed", resource=str(self.resource), object=change.key[1], exc_info=error)

    def _fails(self, error: MeshError) -> None:
        if self.trouble is None or self.trouble.detail != error.detail:
            _log.warning("cannot follow objects", resource=str(self.resource), error=str(error))
        self.trouble = error

    def _works(self) -> None:
        if self.trouble is not None:
            _log.info("following objects again", resource=str(self.resource))
        self.trouble = None


def _version_of(found: Object | None) -> str | None:
    return None if found is None else found["metadata"]["resourceVersion"]
