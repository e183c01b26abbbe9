"""The registry's store in custom resources: stands last in a chain, where `Memory` stands in a registry of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType

from nsm.apis import codec
from nsm.chains.core import Found, InvalidRequest, Limits, R, RegistryCall, RegistryElement, RegistryHandler, Tasks
from nsm.chains.logs import log
from nsm.chains.registry.memory import Memory
from nsm.kube import Object, Reflector, key_of, warn

from .collector import Collector
from .index import Index
from .objects import Form
from .place import Place
from .rules import Rules
from .writes import Writes


class CustomResources(RegistryElement[R]):
    """Keep the records in custom resources of `place`; Find answers from what the watch has told.

    Between entering and leaving it keeps up with the cluster. An API server that is away fails Register and Unregister
    with `Unavailable` or `TimedOut`; Find answers with what was known. Endpoints cannot refresh then, so none ends: it
    is given another `lifetime` seconds.
    """

    def __init__(self, place: Place, form: Form[R], rules: Rules[R], *, lifetime: float, limits: Limits) -> None:
        self._place, self._form = place, form
        self._running = AsyncExitStack()
        self._tasks = Tasks(f"store of {form.resource}")
        self._reflector = Reflector(place.api, form.resource)
        self.index: Index[R] = Index(
            form,
            place.namespace,
            lifetime=lifetime,
            limits=limits,
            is_cut_off=lambda: self._writes.fail or self._reflector.trouble is not None,
            over=self._over,
            complain=self._complain,
        )
        self._memory = Memory(self.index.records)
        self._writes = Writes(place, form, rules, self.index)
        self._collector = Collector(self._tasks, self._writes.remove)

    async def __aenter__(self) -> CustomResources[R]:
        self._reflector.on_change(self.index.hear)
        self._running.callback(self.index.close)
        await self._running.enter_async_context(self._tasks)
        await self._running.enter_async_context(self._reflector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def synced(self) -> None:
        """Wait until what is in the cluster is known."""
        await self._reflector.synced()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Write what the rest of the chain accepted."""
        if not call.record.name:
            raise InvalidRequest(f"the {type(call.record).__name__} has no name")
        record = await rest.register(call)
        return await self._writes.register(codec.clone(record), call.remaining())

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """What matches; a watch goes on."""
        return self._memory.find(call, rest)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Delete it."""
        await rest.unregister(call)
        await self._writes.unregister(codec.clone(call.record), call.remaining())

    def _over(self, ended: Object) -> None:
        if key_of(ended)[0] == self._place.namespace:  # other namespaces have a registry of their own
            self._collector.collect(ended, self.index.at)

    def _complain(self, about: Object, fault: str) -> None:
        kind, (namespace, name) = self._form.resource.kind, key_of(about)
        log.warning("object ignored", kind=kind, namespace=namespace, name=name, fault=fault)
        message = f"this is no {kind} and is ignored: {fault}"
        place = self._place
        event = warn(
            place.api, self._form.resource, about, component=place.component, reason="Malformed", message=message
        )
        self._tasks.spawn(event, name=f"event of {name}")
