"""Watches a domain: its registry, and the managers that are found there or named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from nsm.chains.core import Limits, Tasks
from nsm.chains.identity import trust_domain_of
from nsm.chains.logs import log
from nsm.chains.transport import Pool
from nsm.view.state import State

from .manager import Call, ManagerWatch, Turns
from .registry import RegistryWatch

SETTLE = 0.2
"""Seconds after which changed counts are published."""
TIDY = 10.0
"""Seconds between two looks for what has expired."""


class Watch:
    """Reports to `state` what the registry at `registry_url` and its managers report, until it is closed.

    `managers` are the URLs of the managers, each with its node or nothing; without any, those of all registered
    forwarders are watched. `pool` has the identity with which they are called, in whose trust domain they are.
    """

    def __init__(
        self,
        state: State,
        pool: Pool,
        registry_url: str = "",
        managers: Mapping[str, str] | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._state, self._pool, self._registry_url = state, pool, registry_url
        self._managers, self._limits = dict(managers or {}), limits if limits is not None else Limits()
        self._watched: dict[str, ManagerWatch] = {}
        self._tasks, self._turns = Tasks("view"), Turns()
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Watch:
        for url, node in self._managers.items():
            self.add(url, node)
        if self._registry_url:
            domain = trust_domain_of(self._pool.identity.spiffe_id)
            found = self.add if not self._managers else _ignore
            registry = RegistryWatch(
                self._state, self._registry_url, domain, self._pool, limits=self._limits, found=found
            )
            self._tasks.spawn(registry.run(), name="registry")
        self._tasks.spawn(self._turns.watch_ourselves(), name="own pulse")
        self._tasks.spawn(self._settle(), name="counts")
        self._tasks.spawn(self._tidy(), name="expiry")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.aclose()

    async def complete(self) -> None:
        """Wait until each manager that is known now has reported everything."""
        await asyncio.gather(*(each.complete.wait() for each in self._watched.values()))

    def add(self, url: str, node: str = "") -> None:
        """Watch a manager, too."""
        if url in self._watched:
            return
        log.info("a manager is watched", manager=url)
        self._state.watch_manager(url, trust_domain_of(self._pool.identity.spiffe_id), node)
        watch = self._watched[url] = ManagerWatch(self._state, url, Call(self._pool, url), self._turns)
        self._reading[url] = self._tasks.spawn(watch.run(), name=f"manager {url}")

    def _remove(self, url: str) -> None:
        log.info("a manager is not watched any longer: nothing is registered there", manager=url)
        self._reading.pop(url).cancel()
        del self._watched[url]
        self._state.forget_manager(url)

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(SETTLE)
            self._state.settle()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            self._state.tidy()
            for url in self._state.abandoned():
                if url in self._watched and url not in self._managers:
                    self._remove(url)


def _ignore(_url: str) -> None:
    """The managers are named."""
