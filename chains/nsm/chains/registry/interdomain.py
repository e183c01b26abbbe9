"""Passes records and queries of other domains on to a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, NotFound, R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.domains import domain_of, is_elsewhere


class Interdomain(RegistryElement[R]):
    """Pass what has a name such as ``service@my.domain`` on to `beyond`, and everything else to the rest of the chain.

    Raises `InvalidRequest` if the domain is not valid or not the same in all names, and `NotFound` without a `beyond`.
    """

    def __init__(self, beyond: RegistryHandler[R] | None) -> None:
        self._beyond = beyond

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Register here or there."""
        return await (self._proxy(call) if is_elsewhere(call.record) else rest).register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Find here or there; an error there is the answer."""
        return (self._proxy(call) if is_elsewhere(call.record) else rest).find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister here or there."""
        await (self._proxy(call) if is_elsewhere(call.record) else rest).unregister(call)

    def _proxy(self, call: RegistryCall[R]) -> RegistryHandler[R]:
        domain = domain_of(call.record)
        if self._beyond is None:
            raise NotFound(f"domain {domain!r} is not known here: this registry has no proxy (NSM_PROXY_REGISTRY_URL)")
        return self._beyond
