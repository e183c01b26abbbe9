"""Passes calls on to the registry of another domain, under the names that it uses itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from nsm.apis import codec
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import (
    Exhausted,
    Found,
    Kind,
    Limits,
    MeshError,
    NotFound,
    R,
    RegistryCall,
    RegistryElement,
    RegistryHandler,
    Unavailable,
    together,
    was_not_reached,
)
from nsm.chains.logs import log
from nsm.chains.model.domains import domain_of, enter, is_elsewhere, leave

T = TypeVar("T")

_LIMITS = Limits()

REGISTRY, PROXY = "registry.nsm-system", "nsmgr-proxy.nsm-system"
"""The names of a domain's registry and proxy, in front of the domain's own."""


@dataclass(frozen=True, slots=True)
class Located:
    """The URLs of a component of another domain, best first, and until when they are known (the loop's time)."""

    urls: tuple[str, ...]
    until: float


class Resolver(Protocol):
    """Finds the components of other domains."""

    async def locate(self, component: str, domain: str) -> Located:
        """Where `component`, `REGISTRY` or `PROXY`, of a domain is. Raises `MeshError` that names the domain."""
        ...

    def forget(self, component: str, domain: str) -> None:
        """None of its URLs can be reached: the next call looks it up anew."""
        ...


class ResolveDomain(RegistryElement[R]):
    """Pass a call on to the registry of the domain in its names, which are plain there, and add the domain to answers.

    An endpoint is found under the URL of its domain's proxy. A domain without a proxy is a floating one: its endpoints
    are in other domains, and stay under the URL of the proxy that registered them. A watch also reports when the
    domain's proxy has moved, for which its records are kept; it ends if there are more than `limits` allows. A record
    that brings a domain of its own is left out: no other domain could name it.
    """

    def __init__(self, kind: Kind[R], resolver: Resolver, *, limits: Limits = _LIMITS) -> None:
        self._kind, self._resolver, self._limits = kind, resolver, limits
        self._told: set[str] = set()

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Register there. Raises `Unavailable` if none of the domain's registries can be reached."""
        domain = domain_of(call.record)
        leave(call.record)
        record = codec.clone(await self._at_registry(domain, call, rest.register))
        enter(record, domain)
        return record

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister there."""
        domain = domain_of(call.record)
        leave(call.record)
        await self._at_registry(domain, call, rest.unregister)

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Find there."""
        domain = domain_of(call.record)
        leave(call.record)
        located, proxy = await together(self._resolver.locate(REGISTRY, domain), self._proxy(domain))
        for url in located.urls:
            call.target, answered = url, False
            try:
                async for batch in self._translated(rest.find(call), domain, proxy, is_watch=call.watch):
                    answered = True
                    yield batch
            except MeshError as error:
                if answered or not was_not_reached(error):
                    raise
                log.info("a domain's registry cannot be reached", domain=domain, reason=error.detail)
            else:
                return
        raise self._none_reached(domain, located)

    async def _at_registry(
        self, domain: str, call: RegistryCall[R], work: Callable[[RegistryCall[R]], Awaitable[T]]
    ) -> T:
        located = await self._resolver.locate(REGISTRY, domain)
        for url in located.urls:
            call.target = url
            try:
                return await work(call)
            except MeshError as error:
                if not was_not_reached(error):
                    raise
                log.info("a domain's registry cannot be reached", domain=domain, reason=error.detail)
        raise self._none_reached(domain, located)

    def _none_reached(self, domain: str, located: Located) -> MeshError:
        self._resolver.forget(REGISTRY, domain)
        return Unavailable(f"the registry of domain {domain!r} cannot be reached at {' or '.join(located.urls)}")

    async def _proxy(self, domain: str) -> Located:
        """Where the domain's proxy is; no URL if it has none. Raises `MeshError` if that cannot be found out."""
        if self._kind.record is not NetworkServiceEndpoint:
            return Located((), float("inf"))
        try:
            return await self._resolver.locate(PROXY, domain)
        except NotFound as error:
            log.debug("a domain without a proxy", domain=domain, reason=str(error))
            return Located((), asyncio.get_running_loop().time() + _AGAIN)

    async def _proxy_now(self, domain: str, before: Located) -> Located:
        """Where the proxy is by now; the same place for some more time if that cannot be found out."""
        try:
            return await self._proxy(domain)
        except MeshError as error:
            log.info("a domain's proxy cannot be looked up", domain=domain, reason=str(error))
            return Located(before.urls, asyncio.get_running_loop().time() + _AGAIN)

    async def _translated(
        self, found: AsyncIterator[Sequence[Found[R]]], domain: str, proxy: Located, *, is_watch: bool
    ) -> AsyncIterator[Sequence[Found[R]]]:
        if not is_watch:
            async for batch in found:
                yield self._as_seen_here(batch, domain, proxy)
            return
        async with aclosing(_with_pauses(found, lambda: proxy.until)) as batches:
            known: dict[str, Found[R]] = {}
            async for next_batch in batches:
                if next_batch is None:
                    before, proxy = proxy, await self._proxy_now(domain, proxy)
                    if known and before.urls[:1] != proxy.urls[:1]:
                        yield self._as_seen_here([*known.values()], domain, proxy)
                    continue
                for one in next_batch:
                    known.pop(one.record.name, None)
                    if not one.deleted:
                        known[one.record.name] = one
                if len(known) > self._limits.cached_records:
                    raise Exhausted(
                        f"domain {domain!r} has more records of a query than are kept here "
                        "(NSM_LIMITS=cached_records:..)",
                        limit="cached_records",
                    )
                yield self._as_seen_here(next_batch, domain, proxy)

    def _as_seen_here(self, batch: Sequence[Found[R]], domain: str, proxy: Located) -> list[Found[R]]:
        seen = []
        for one in batch:
            if is_elsewhere(one.record):
                self._leave_out(one.record.name, domain)
                continue
            record = codec.clone(one.record)
            enter(record, domain)
            if proxy.urls and isinstance(record, NetworkServiceEndpoint):
                record.url = proxy.urls[0]
            seen.append(Found(record, one.deleted))
        return seen

    def _leave_out(self, name: str, domain: str) -> None:
        if domain not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(domain)
            log.warning(
                "left out a record of another domain: a name inside a domain has no @", domain=domain, name=name[:128]
            )


_AGAIN = 30.0
"""Seconds until a proxy that was not found is looked up again."""
_MOST_TOLD = 256


async def _with_pauses(
    found: AsyncIterator[Sequence[Found[R]]], until: Callable[[], float]
) -> AsyncGenerator[Sequence[Found[R]] | None, None]:
    """What is `found`, and None whenever the time `until` has come."""
    batches: asyncio.Queue[Sequence[Found[R]]] = asyncio.Queue(1)

    async def feed() -> None:
        async with aclosing(cast(Any, found)) as all_of_them:
            async for batch in all_of_them:
                await batches.put(batch)

    feeding, loop = asyncio.ensure_future(feed()), asyncio.get_running_loop()
    getting = asyncio.ensure_future(batches.get())
    try:
        while True:
            left = until() - loop.time()
            timeout = None if left == float("inf") else max(0.0, left)
            await asyncio.wait({feeding, getting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
                getting = asyncio.ensure_future(batches.get())
            elif feeding.done():
                feeding.result()
                return
            else:
                yield None
    finally:
        for task in (feeding, getting):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
