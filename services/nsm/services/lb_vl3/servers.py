"""The clients of a vL3 that are servers of a load balancer, as the monitors of managers or endpoints report them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol

from nsm.apis.connection import Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector, State
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Backoff, Limits, MeshError, RegistryHandler, Tasks, Unavailable
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.chains.model.ipcontext import interfaces
from nsm.chains.registry.follow import Follow

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
GRACE = 15.0
"""Seconds for which servers that a lost monitor reported are kept: their packets pass meanwhile."""


class Events(Protocol):
    """Reads the monitor of a component."""

    def __call__(self, target: str, selector: MonitorScopeSelector, /) -> AsyncIterator[ConnectionEvent]:
        """Its events, forever. Raises `MeshError` when the stream breaks."""
        ...


class Servers:
    """The addresses of clients of `service` with any label of `selector` whose connections are not down.

    `changed` is called when they may have changed. `own` are the balancer's own addresses, which never count.
    """

    def __init__(
        self, service: str, selector: Mapping[str, str], events: Events, changed: Callable[[], None], tasks: Tasks
    ) -> None:
        self._service, self._selector, self._events = service, dict(selector), events
        self._changed, self._tasks = changed, tasks
        self._found: dict[str, dict[str, frozenset[Address]]] = {}
        """The addresses of each connection, by the component that reports it."""
        self._watching: dict[str, asyncio.Task[None]] = {}

    def addresses(self, own: Collection[Address]) -> list[Address]:
        """All of them, in order."""
        found = {address for each in self._found.values() for addresses in each.values() for address in addresses}
        return sorted(found - set(own), key=lambda address: (address.version, int(address)))

    def watch(self, targets: Collection[str]) -> None:
        """Read the monitors of the components at `targets`, and of no others."""
        for target in [each for each in self._watching if each not in targets]:
            self._watching.pop(target).cancel()
            self._forget(target)
        for target in targets:
            if target not in self._watching:
                self._watching[target] = self._tasks.spawn(self._watch(target), name=f"monitor of {target}")

    async def _watch(self, target: str) -> None:
        pauses, selector = Backoff(FIRST_PAUSE, LONGEST_PAUSE), MonitorScopeSelector(network_services=[self._service])
        forgetting: asyncio.TimerHandle | None = None
        while True:
            reason: MeshError = Unavailable("it ended the stream")
            try:
                async for event in self._events(target, selector):
                    if forgetting is not None:
                        forgetting.cancel()
                        forgetting = None
                    pauses.reset()
                    self._learn(target, event)
            except MeshError as error:
                reason = error
            finally:
                if forgetting is not None and self._watching.get(target) is not asyncio.current_task():
                    forgetting.cancel()
            log.warning("no monitor of a component of the vL3", of=target, reason=str(reason), keeps_s=GRACE)
            if forgetting is None:
                forgetting = asyncio.get_running_loop().call_later(GRACE, self._forget, target)
            await asyncio.sleep(pauses.next())

    def _learn(self, target: str, event: ConnectionEvent) -> None:
        known = self._found.setdefault(target, {})
        before = dict(known)
        if event.type == ConnectionEventType.INITIAL_STATE_TRANSFER:
            known.clear()
        for key, connection in event.connections.items():
            if event.type != ConnectionEventType.DELETE and self._serves(connection):
                known[key] = _addresses_of(connection)
            else:
                known.pop(key, None)
        if known != before:
            self._changed()

    def _serves(self, connection: Connection) -> bool:
        labels = connection.labels
        is_chosen = any(labels.get(key) == value for key, value in self._selector.items())
        return is_chosen and connection.state != State.DOWN and connection.network_service == self._service

    def _forget(self, target: str) -> None:
        if self._found.pop(target, None):
            self._changed()


class _Endpoints(Follow[NetworkServiceEndpoint]):
    """The endpoints of a service; `changed` is called when there are others."""

    def __init__(self, service: str, limits: Limits, changed: Callable[[Sequence[str]], None]) -> None:
        super().__init__(NetworkServiceEndpoint(network_service_names=[service]), limits=limits)
        self._service, self._told = service, changed

    def settle(self) -> None:
        super().settle()
        self.records.listen(lambda _: self._tell())
        self._tell()

    def _tell(self) -> None:
        query = NetworkServiceEndpoint(network_service_names=[self._service])
        self._told(list(dict.fromkeys(record.url for record in self.records.matching(query) if record.url)))


async def follow_endpoints(
    service: str,
    registry: RegistryHandler[NetworkServiceEndpoint],
    limits: Limits,
    changed: Callable[[Sequence[str]], None],
) -> None:
    """Report the URLs of the endpoints of `service` to `changed`, forever."""

    def broke(error: MeshError, pause: float) -> None:
        log.warning("the watch on the endpoints failed", service=service, reason=str(error), again_in_s=pause)

    await _Endpoints(service, limits, changed).run(registry, broke)


def _addresses_of(connection: Connection) -> frozenset[Address]:
    """The first address of each family."""
    context = connection.context.ip_context if connection.context is not None else None
    found = interfaces(context.src_ip_addrs) if context is not None else []
    return frozenset({each.version: each.ip for each in reversed(found)}.values())
