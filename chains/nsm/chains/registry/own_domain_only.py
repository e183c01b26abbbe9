"""Serves components of one's own trust domain only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of


class OwnDomainOnly(RegistryElement[R]):
    """Refuse callers of other trust domains: what they may find and register is in the registry itself."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused`."""
        self._check(call)
        return await rest.register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `Refused`."""
        self._check(call)
        return rest.find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Raise `Refused`."""
        self._check(call)
        await rest.unregister(call)

    def _check(self, call: RegistryCall[R]) -> None:
        if call.peer is None:
            return
        own = trust_domain_of(self._identity.spiffe_id)
        if trust_domain_of(call.peer.spiffe_id) != own:
            raise Refused(
                f"no sufficient privileges: {call.peer.spiffe_id} is not of {own!r}; other domains query the registry"
            )
