"""What components of other trust domains may find and register."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Found, R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.model.domains import is_elsewhere
from nsm.chains.policy import Admitted
from nsm.chains.policy.admitted import why_not

_NAMED_BY_NOTHING = "an endpoint without a network service"


class LimitDomains(RegistryElement[R]):
    """Let callers of other trust domains find, and register for, the services that `admitted` lists, and no others.

    They do not find records of other services, also if they query everything.
    """

    def __init__(self, admitted: Admitted, identity: Identity) -> None:
        self._admitted, self._identity = admitted, identity

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` for a service that is not listed."""
        self._check(call, _services_of(call.record) or [_NAMED_BY_NOTHING])
        return await rest.register(call)

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Raise `Refused` for a service that is not listed; leave out records of such services."""
        domain = self._check(call, _services_of(call.record))
        async for batch in rest.find(call):
            yield batch if domain is None else [each for each in batch if self._may_see(domain, each.record)]

    def _check(self, call: RegistryCall[R], services: Sequence[str]) -> str | None:
        """The caller's trust domain, if that is not ours."""
        if call.peer is None or (domain := trust_domain_of(call.peer.spiffe_id)) == self._own_domain():
            return None
        if is_elsewhere(call.record):
            raise Refused(f"no sufficient privileges: {call.peer.spiffe_id} finds other domains through its own proxy")
        if (service := self._admitted.refuses(domain, services)) is not None:
            raise Refused(why_not(call.peer.spiffe_id, service))
        return domain

    def _own_domain(self) -> str:
        return trust_domain_of(self._identity.spiffe_id)

    def _may_see(self, domain: str, record: R) -> bool:
        return any(self._admitted.admits(domain, service) for service in _services_of(record))


def _services_of(record: NetworkService | NetworkServiceEndpoint) -> list[str]:
    if isinstance(record, NetworkServiceEndpoint):
        return record.network_service_names
    return [record.name] if record.name else []
