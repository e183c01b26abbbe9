"""The other endpoints of a vL3 network: which there are, who they are, and the wires to the older ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import KERNEL, LOCAL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkServiceEndpoint
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
from nsm.chains.logs import log
from nsm.chains.model.addresses import read_interface
from nsm.chains.model.ipcontext import ip_context_of
from nsm.chains.registry.follow import Follow

_LOOK_TIMEOUT = 2.0
"""Seconds that looking up an endpoint may take, of which the watch has not told yet."""
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


class Peers:
    """The endpoints of `services` besides `name`, as the registry has them (see `Vl3Peers`)."""

    def __init__(
        self,
        name: str,
        services: Sequence[str],
        registry: RegistryHandler[NetworkServiceEndpoint],
        limits: Limits,
    ) -> None:
        self._name, self._services, self._registry = name, tuple(services), registry
        self._changes = asyncio.Event()
        self._watched = _Watched(services, limits, self._changes.set)

    async def run(self, follow: Callable[[Sequence[str], bool], None]) -> None:
        """Watch, forever; `follow` receives the names of the older endpoints whenever they may have changed.

        It also receives whether those are all: at first, and after the watch broke, others may follow.
        """
        async with Tasks("endpoints of the vL3") as tasks:
            tasks.spawn(self._watched.run(self._registry, _broke), name="watch")
            while True:
                await self._changes.wait()
                self._changes.clear()
                if (older := self.older()) is not None:
                    follow(older, self._watched.is_complete)

    def older(self) -> list[str] | None:
        """The endpoints that were registered before this one; None before this one is known to be registered."""
        own = self._watched.known.get(self._name)
        if own is None:
            return None
        return [name for name, each in self._watched.known.items() if name != self._name and _age(each) < _age(own)]

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
    """The wires to other endpoints, by `chain`, which repeats requests until they succeed."""

    def __init__(self, chain: Chain, name: str, service: str, labels: Mapping[str, str], tasks: Tasks) -> None:
        self._chain, self._name, self._service, self._labels = chain, name, service, dict(labels)
        self._tasks = tasks
        self._requesting: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """The number of wires, or of requests for them."""
        return len(self._requesting)

    def follow(self, endpoints: Sequence[str], are_all: bool) -> None:
        """Have a wire to each of `endpoints`, and to no others if they `are_all`."""
        for name in [each for each in self._requesting if are_all and each not in endpoints]:
            self._tasks.spawn(self._close(name, self._requesting.pop(name)), name=f"end of the wire to {name}")
        for name in endpoints:
            if name not in self._requesting:
                self._requesting[name] = self._tasks.spawn(self._request(name), name=f"wire to {name}")

    async def close(self) -> None:
        """Close all."""
        names = list(self._requesting)
        await asyncio.gather(*(self._close(name, self._requesting.pop(name)) for name in names))

    async def _request(self, name: str) -> None:
        connection = await self._chain.request(self._call(name))
        log.info("connected to an endpoint of the vL3", endpoint=name, wire=connection.id)

    async def _close(self, name: str, requesting: asyncio.Task[None]) -> None:
        requesting.cancel()
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
    log.warning("the watch on the endpoints of the vL3 failed", reason=str(error), again_in_s=pause)
