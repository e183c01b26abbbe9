"""The other endpoints of a vL3 network: which there are, who they are, and the wires to the older ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    Call,
    Chain,
    Found,
    Inbox,
    Limits,
    MeshError,
    Refused,
    RegistryCall,
    RegistryHandler,
    Tasks,
)
from nsm.chains.elements.liveness import Liveness
from nsm.chains.logs import log
from nsm.chains.model.addresses import read_interface
from nsm.chains.model.ipcontext import ip_context_of
from nsm.chains.model.matching import is_subset, labels_of
from nsm.chains.registry.follow import Follow

_LOOK_TIMEOUT = 2.0
"""Seconds that looking up an endpoint may take, of which the watch has not told yet."""
KEPT, LOOK = 60.0, 0.5
"""Seconds for which the wire to an endpoint that is no longer registered is kept, and between two looks at it."""
T = TypeVar("T")


class _Watched(Follow[NetworkServiceEndpoint]):
    """The endpoints of the services; those that were known stay known while the watch is broken."""

    def __init__(self, services: Sequence[str], limits: Limits, changed: Callable[[], None]) -> None:
        super().__init__(NetworkServiceEndpoint(network_service_names=list(services)), limits=limits)
        self.known: dict[str, NetworkServiceEndpoint] = {}
        self._changed = changed

    async def learn(self, found: Found[NetworkServiceEndpoint], inbox: Inbox | None) -> None:
        await super().learn(found, inbox)
        name, record = found.record.name, self.records.get(found.record.name)
        if record is not None:
            self.known[name] = record
        elif self.is_complete:
            self.known.pop(name, None)
        self._changed()

    def settle(self) -> None:
        super().settle()
        self.known = {name: each for name in self.known if (each := self.records.get(name)) is not None}
        self._changed()


class Selection(Follow[NetworkService]):
    """The endpoints that a service's matches select for wires between endpoints, which have the labels `labels`.

    Only a match whose source selector names some of these labels concerns those wires: one for capability=vl3 keeps
    them from endpoints of the service that start others on demand. Without such a match, all endpoints are selected.
    """

    def __init__(
        self, service: str, labels: Mapping[str, str], registry: RegistryHandler[NetworkService], limits: Limits
    ) -> None:
        super().__init__(NetworkService(name=service), limits=limits)
        self._service, self._labels, self._registry = service, dict(labels), registry
        self._known = NetworkService()
        self.is_known = False
        """Whether the registry has answered; what it said stays known while the watch is broken."""

    async def follow(self, changed: Callable[[], None]) -> None:
        """Watch the service, forever; `changed` is called after each change."""
        self._changed = changed
        await self.run(self._registry, _broke)

    async def learn(self, found: Found[NetworkService], inbox: Inbox | None) -> None:
        """Apply one change."""
        await super().learn(found, inbox)
        if found.record.name == self._service and not found.deleted:
            self._known, self.is_known = found.record, True
            self._changed()

    def settle(self) -> None:
        """Mark the service as known; it may not be registered."""
        super().settle()
        self.is_known = True
        self._changed()

    def selects(self, endpoint: NetworkServiceEndpoint) -> bool:
        """Whether a wire to this endpoint is wanted."""
        for match in self._known.matches:
            if match.source_selector and is_subset(self._labels, match.source_selector, self._labels):
                has = labels_of(endpoint, self._service)
                return any(is_subset(has, route.destination_selector, self._labels) for route in match.routes)
        return True


class Peers:
    """The endpoints of `services` besides `name`, as the registry has them (see `Vl3Peers`).

    Wires are wanted to those that `selection` selects; None: to all.
    """

    def __init__(
        self,
        name: str,
        services: Sequence[str],
        registry: RegistryHandler[NetworkServiceEndpoint],
        limits: Limits,
        selection: Selection | None = None,
    ) -> None:
        self._name, self._services, self._registry, self._selection = name, tuple(services), registry, selection
        self._changes = asyncio.Event()
        self._watched = _Watched(services, limits, self._changes.set)

    async def run(self, follow: Callable[[Sequence[str], Collection[str] | None], None]) -> None:
        """Watch, forever; `follow` receives the names of the older endpoints whenever they may have changed.

        It also receives the names of all that are registered; None at first, and after the watch broke: others may
        follow.
        """
        async with Tasks("endpoints of the vL3") as tasks:
            tasks.spawn(self._watched.run(self._registry, _broke), name="watch")
            if self._selection is not None:
                tasks.spawn(self._selection.follow(self._changes.set), name="watch on the service")
            while True:
                await self._changes.wait()
                self._changes.clear()
                if (older := self.older()) is not None:
                    follow(older, self._watched.known.keys() if self._watched.is_complete else None)

    def older(self) -> list[str] | None:
        """The endpoints that were registered before this one; None before this one is known to be registered."""
        own, selection = self._watched.known.get(self._name), self._selection
        if own is None or (selection is not None and not selection.is_known):
            return None
        others = [each for each in self._watched.known.values() if each.name != self._name and _age(each) < _age(own)]
        return [each.name for each in others if selection is None or selection.selects(each)]

    async def is_client(self, call: Call) -> bool:
        """Whether a call is of a client, and not of another endpoint. Raises as `endpoint_of` does."""
        return not await self.endpoint_of(call)

    async def endpoint_of(self, call: Call) -> str:
        """See `Vl3Peers`."""
        path = call.connection.path
        name = path.path_segments[0].name if path is not None and path.path_segments else ""
        record = self._record(self._watched.known.values(), name)
        if record is None and name and _brings_prefixes(call):
            record = self._record(await self._look_up(), name)
        if record is None or name == self._name:
            return ""
        if call.origin not in record.path_ids[:1]:
            who = record.path_ids[0] if record.path_ids else "an unknown identity"
            raise Refused(
                f"the request is of {call.origin or 'an unknown identity'}, but the endpoint {name} was registered by "
                f"{who}: a client needs a name that no endpoint of its service has"
            )
        return name

    @staticmethod
    def _record(records: Iterable[NetworkServiceEndpoint], name: str) -> NetworkServiceEndpoint | None:
        """The record of that name; endpoints of other domains have names with an ``@``, and paths do not."""
        return next((each for each in records if name in {each.name, each.name.partition("@")[0]}), None)

    async def _look_up(self) -> list[NetworkServiceEndpoint]:
        deadline = asyncio.get_running_loop().time() + _LOOK_TIMEOUT
        query = NetworkServiceEndpoint(network_service_names=list(self._services))
        found = []
        try:
            async for batch in self._registry.find(RegistryCall(query, deadline=deadline)):
                found += [one.record for one in batch if not one.deleted]
        except MeshError as error:
            log.warning("cannot look up the endpoints of the vL3", error=str(error))
        return found


class PeerWires:
    """The wires to other endpoints, by `chain`, which repeats requests until they succeed.

    An endpoint whose process is started again is not registered in between, but its network namespace forwards packets.
    So a wire to one that is no longer registered is kept while `liveness` sees packets pass, for up to `KEPT` seconds.
    """

    def __init__(
        self,
        chain: Chain,
        name: str,
        service: str,
        labels: Mapping[str, str],
        tasks: Tasks,
        liveness: Liveness | None = None,
    ) -> None:
        self._chain, self._name, self._service, self._labels = chain, name, service, dict(labels)
        self._tasks, self._liveness = tasks, liveness
        self._requesting: dict[str, asyncio.Task[None]] = {}
        self._wires: dict[str, Connection] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """The number of wires, or of requests for them."""
        return len(self._requesting)

    def follow(self, endpoints: Sequence[str], registered: Collection[str] | None) -> None:
        """Have a wire to each of `endpoints`, and to no others if it is known which are `registered`."""
        for name in [each for each in self._requesting if registered is not None and each not in endpoints]:
            if name in (registered or ()):
                self._stay(name)
                self._tasks.spawn(self._close(name, self._requesting.pop(name)), name=f"end of the wire to {name}")
            elif name not in self._leaving:
                self._leaving[name] = self._tasks.spawn(self._leave(name), name=f"last look at the wire to {name}")
        for name in endpoints:
            self._stay(name)
            if name not in self._requesting:
                self._requesting[name] = self._tasks.spawn(self._request(name), name=f"wire to {name}")

    async def close(self) -> None:
        """Close all."""
        for name in list(self._leaving):
            self._stay(name)
        names = list(self._requesting)
        await asyncio.gather(*(self._close(name, self._requesting.pop(name)) for name in names))

    def _stay(self, name: str) -> None:
        if (leaving := self._leaving.pop(name, None)) is not None:
            leaving.cancel()

    async def _leave(self, name: str) -> None:
        """Close the wire to an endpoint that is no longer registered, when nothing answers there any more."""
        for _ in range(round(KEPT / LOOK)):
            if not await self._answers(name):
                break
            await asyncio.sleep(LOOK)
        del self._leaving[name]
        await self._close(name, self._requesting.pop(name))

    async def _answers(self, name: str) -> bool:
        wire = self._wires.get(name)
        return wire is not None and self._liveness is not None and await self._liveness.is_alive(wire) is not False

    async def _request(self, name: str) -> None:
        connection = self._wires[name] = await self._chain.request(self._call(name))
        log.info("connected to an endpoint of the vL3", endpoint=name, wire=connection.id)

    async def _close(self, name: str, requesting: asyncio.Task[None]) -> None:
        requesting.cancel()
        self._wires.pop(name, None)
        await asyncio.gather(requesting, return_exceptions=True)
        try:
            await self._chain.close(self._call(name))
            log.info("no longer connected to an endpoint of the vL3", endpoint=name)
        except MeshError as error:
            log.info("the wire to an endpoint is not closed at its end", endpoint=name, error=str(error))

    def _call(self, name: str) -> Call:
        connection = Connection(
            id=f"{self._name}-to-{name}",
            network_service=self._service,
            network_service_endpoint_name=name,
            labels=dict(self._labels),
            payload=IP,
        )
        preferences = [Mechanism(cls=LOCAL, type=KERNEL)]
        return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=preferences))


def _age(record: NetworkServiceEndpoint) -> tuple[float, str]:
    """What orders endpoints by when they were registered first."""
    since = record.initial_registration_time
    return (since.to_seconds() if since is not None else 0.0), record.name


def _brings_prefixes(call: Call) -> bool:
    read = (read_interface(route.prefix) for route in ip_context_of(call.connection).dst_routes)
    return any(each is not None and each.network.num_addresses > 1 for each in read)


def _broke(error: MeshError, pause: float) -> None:
    log.warning("a watch on the vL3 in the registry failed", reason=str(error), again_in_s=pause)
