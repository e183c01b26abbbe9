"""Custom resources of a Kubernetes cluster, as a backend of a registry."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import cast

from nsm.chains.core import InvalidRequest, R, Tasks
from nsm.chains.logs import log
from nsm.chains.registry.stored import Backend, Changed, Entry, Key, Missing
from nsm.chains.registry.stored.backend import Observe
from nsm.kube import Change, Object, ObjectConflict, ObjectMissing, Reflector, key_of, warn
from nsm.kube import Key as ObjectKey

from .names import object_name
from .objects import Form
from .place import Place


class CustomResources(Backend[R]):
    """Objects of one kind. It writes to `place.namespace`, and reads all namespaces, as upstream does.

    If several hold records of one name, the own namespace takes precedence, and in it the object that is named like the
    record. An object without a valid record gets a warning event. A deleted object that still exists because of
    finalizers no longer counts.
    """

    def __init__(self, place: Place, form: Form[R]) -> None:
        self._place, self._form = place, form
        self._running = AsyncExitStack()
        self._tasks = Tasks(f"events of {form.resource}")
        self._reflector = Reflector(place.api, form.resource)
        self._observe: Observe[R] = lambda *_: None

    def __str__(self) -> str:
        return "the API server"

    @property
    def is_cut_off(self) -> bool:
        """Whether the API server is unreachable."""
        return self._reflector.trouble is not None

    def observe(self, observe: Observe[R]) -> None:
        """Report to `observe`."""
        self._observe = observe

    async def __aenter__(self) -> CustomResources[R]:
        self._reflector.on_change(self._changed)
        await self._running.enter_async_context(self._tasks)
        await self._running.enter_async_context(self._reflector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def synced(self) -> None:
        """Wait until all objects are known."""
        await self._reflector.synced()

    def key_of(self, name: str) -> Key:
        """The key in the own namespace, with a name that Kubernetes allows."""
        return self._place.namespace, object_name(name)

    async def get(self, key: Key) -> Entry[R] | None:
        """The object, from the API server."""
        namespace, name = cast(ObjectKey, key)
        try:
            found = await self._place.api.get(self._form.resource, name, namespace)
        except ObjectMissing:
            return None
        return self._entry(found)

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Create or replace the object. Raises `ObjectMissing` if the kind or the namespace does not exist."""
        over = None if held is None else held.raw
        body = self._form.to_object(record, self._place.namespace, over)
        self._check(body)
        try:
            if over is None:
                written = await self._place.api.create(self._form.resource, body, self._place.namespace)
            else:
                written = await self._place.api.replace(self._form.resource, body)
        except ObjectConflict:
            raise Changed from None
        except ObjectMissing:
            if over is None:
                raise
            raise Missing from None
        return self._entry(written)

    async def delete(self, held: Entry[R]) -> None:
        """Delete exactly that version of the object."""
        namespace, name = key_of(held.raw)
        version = held.raw["metadata"]["resourceVersion"]
        try:
            await self._place.api.delete(self._form.resource, name, namespace, version=version)
        except ObjectConflict:
            raise Changed from None
        except ObjectMissing:
            raise Missing from None

    def complain(self, about: Entry[R], fault: str) -> None:
        """Report by a warning event on the object, and in the log."""
        self._complain(about.raw, fault)

    def _changed(self, change: Change) -> None:
        if change.now is None or _is_leaving(change.now):
            self._observe(change.key, None)
            return
        try:
            entry = self._read(change.now)
        except ValueError as error:
            self._complain(change.now, str(error))
        else:
            self._observe(change.key, entry)

    def _entry(self, found: Object) -> Entry[R]:
        try:
            return self._read(found)
        except ValueError as error:
            return self._as_entry(found, None, str(error))

    def _read(self, found: Object) -> Entry[R]:
        """Raises ValueError if the object holds no record."""
        return self._as_entry(found, self._form.from_object(found))

    def _as_entry(self, found: Object, record: R | None, fault: str = "") -> Entry[R]:
        key = key_of(found)
        usual = None if record is None else object_name(record.name)  # a person may have copied the object
        is_ours = key[0] == self._place.namespace
        return Entry(
            key,
            int(found["metadata"].get("resourceVersion") or 0),
            record,
            precedence=(not is_ours, key[1] != usual, key),
            is_ours=is_ours,  # other namespaces have their own registry
            blocked=_kept(found) if _is_leaving(found) else "",
            fault=self._kept_for(found, fault),
            place=f"the object {key[1]!r}",
            raw=found,
        )

    def _kept_for(self, found: Object, fault: str) -> str:
        """Why an unreadable object is not overwritten: a person may have written rules for clients into it."""
        if not fault or self._form.is_extensible or not isinstance(found.get("spec"), dict):
            return ""
        name = key_of(found)[1]
        what = f"the object {name!r} of that name cannot be read, and is not overwritten: {fault}"
        return f"{what}; correct it, or delete it"

    def _check(self, body: Object) -> None:
        """Reject what could not be read back, such as an impossible time."""
        try:
            self._form.from_object(body)
        except ValueError as error:
            raise InvalidRequest(f"{key_of(body)[1]!r} cannot be registered: {error}") from None

    def _complain(self, about: Object, fault: str) -> None:
        kind, (namespace, name) = self._form.resource.kind, key_of(about)
        log.warning("object ignored", kind=kind, namespace=namespace, name=name, fault=fault)
        message = f"this is not a valid {kind} and is ignored: {fault}"
        place = self._place
        event = warn(
            place.api, self._form.resource, about, component=place.component, reason="Malformed", message=message
        )
        self._tasks.spawn(event, name=f"event of {name}")


def _is_leaving(found: Object) -> bool:
    """Whether the object was deleted and waits for its finalizers."""
    return "deletionTimestamp" in found["metadata"]


def _kept(held: Object) -> str:
    namespace, name = key_of(held)
    finalizers = ", ".join(held["metadata"].get("finalizers") or ())
    return f"the object {name!r} in {namespace!r} is being deleted and waits for its finalizers: {finalizers}"
