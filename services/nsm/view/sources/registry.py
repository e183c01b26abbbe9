"""Watches one registry: its services, endpoints and forwarders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import (
    ENDPOINTS,
    SERVICES,
    Found,
    Inbox,
    Limits,
    MeshError,
    R,
    RegistryChain,
    Tasks,
    TimedOut,
    Unavailable,
)
from nsm.chains.logs import log
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.follow import Follow
from nsm.chains.transport import Pool, RemoteRegistry, check_health
from nsm.view.state import State

BEAT = 5.0
"""Seconds between two questions whether a registry responds."""


@dataclass(frozen=True)
class _Apply(Generic[R]):
    """Where one kind of record goes."""

    put: Callable[[R, bool], None]
    """With whether it is news: it was not there when the watch began."""
    drop: Callable[[str], None]
    alive: Callable[[], None]


class _Follow(Follow[R]):
    """Applies what a registry has to a view's state; a record is dropped only if the registry does not have it."""

    def __init__(self, query: R, apply: _Apply[R], known: Callable[[], set[str]], *, limits: Limits) -> None:
        super().__init__(query, limits=limits)
        self._apply, self._known = apply, known

    async def learn(self, found: Found[R], inbox: Inbox | None) -> None:
        await super().learn(found, inbox)
        if found.deleted:
            self._apply.drop(found.record.name)
        elif self.records.get(found.record.name) is not None:
            self._apply.put(found.record, self.is_complete)

    def settle(self) -> None:
        super().settle()
        self._apply.alive()
        for name in self._known():
            if self.records.get(name) is None:
                self._apply.drop(name)


class RegistryWatch:
    """Reports to `state` what the registry of `domain` at `url` has; `found` receives the URL of each manager."""

    def __init__(
        self, state: State, url: str, domain: str, pool: Pool, *, limits: Limits, found: Callable[[str], None]
    ) -> None:
        self._state, self._url, self._domain, self._pool, self._found = state, url, domain, pool, found
        records = state.records
        self._endpoints = _Follow(
            NetworkServiceEndpoint(),
            _Apply(self._put_endpoint, lambda name: records.drop_endpoint(name, domain), self._alive),
            lambda: records.endpoint_names(domain),
            limits=limits,
        )
        self._services = _Follow(
            NetworkService(),
            _Apply(
                self._put_service,
                lambda name: records.drop_service(name, domain),
                self._alive,
            ),
            lambda: records.service_names(domain),
            limits=limits,
        )

    async def run(self) -> None:
        """Watch forever."""
        self._state.watch_registry(self._url, self._domain)
        endpoints = RegistryChain([RegistryClientUrl(self._url)], RemoteRegistry(ENDPOINTS, self._pool))
        services = RegistryChain([RegistryClientUrl(self._url)], RemoteRegistry(SERVICES, self._pool))
        async with Tasks("view") as tasks:
            tasks.spawn(self._endpoints.run(endpoints, self._broke), name=f"endpoints of {self._url}")
            tasks.spawn(self._services.run(services, self._broke), name=f"services of {self._url}")
            await self._beat()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await check_health(self._pool, self._url)
            except (Unavailable, TimedOut) as error:
                self._state.registry_lost(self._url, str(error))
                continue
            except MeshError:
                pass
            self._alive()

    def _alive(self) -> None:
        if self._endpoints.is_complete and self._services.is_complete:
            self._state.registry_alive(self._url)

    def _broke(self, error: MeshError, pause: float) -> None:
        self._state.registry_lost(self._url, str(error))
        log.info("a registry does not respond", registry=self._url, reason=str(error), again_in_s=pause)

    def _put_service(self, record: NetworkService, is_news: bool) -> None:
        self._state.records.put_service(record, self._domain, is_news=is_news)

    def _put_endpoint(self, record: NetworkServiceEndpoint, is_news: bool) -> None:
        self._state.records.put_endpoint(record, self._domain, is_news=is_news)
        if record.url and self._state.directory.is_forwarder(record):
            self._found(record.url)
