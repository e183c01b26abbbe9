"""Passes records and queries of other domains on to a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, NotFound, R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.domains import domain_of, is_elsewhere


class Interdomain(RegistryElement[R]):
    """Pass what has a name such as ``service@my.domain`` on to `beyond`, and everything else to the rest of the chain.

    Raises `InvalidRequest` if the domain is not valid or not the same in all names. Without a `beyond` all names are
    one's own; a Find for such a name that finds nothing raises `NotFound`, since it may be meant for another domain.
    """

    def __init__(self, beyond: RegistryHandler[R] | None) -> None:
        self._beyond = beyond

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Register here or there."""
        return await (self._proxy(call) or rest).register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Find here or there; an error there is the answer."""
        if self._beyond is None and not call.watch and is_elsewhere(call.record):
            return _something(call, rest)
        return (self._proxy(call) or rest).find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister here or there."""
        await (self._proxy(call) or rest).unregister(call)

    def _proxy(self, call: RegistryCall[R]) -> RegistryHandler[R] | None:
        if self._beyond is not None and is_elsewhere(call.record):
            domain_of(call.record)
            return self._beyond
        return None


async def _something(call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
    """What is found. Raises `NotFound` if that is nothing."""
    found = False
    async for batch in rest.find(call):
        found = found or bool(batch)
        yield batch
    if not found:
        domain = domain_of(call.record)
        raise NotFound(f"domain {domain!r} is not known here: this registry has no proxy (NSM_PROXY_REGISTRY_URL)")
