"""Who may provide a network service, or say what it is."""

from __future__ import annotations

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.policy import IdPatterns, Registration
from nsm.chains.policy.registration import VARIABLE


class AllowServices(RegistryElement[R]):
    """Refuse a Register for a network service that is not open to who it comes from.

    Without a rule of its own `forwarder_service` is open to `forwarders` alone: a forwarder gets the requests of all
    clients of a node, with their network namespaces. So are the names of endpoints that begin with it: who is there
    first with a forwarder's name would keep it out. Patterns without a trust domain are of our own. Stands behind
    authorize, which finds out who a call comes from.
    """

    def __init__(
        self,
        registration: Registration,
        identity: Identity,
        *,
        forwarder_service: str,
        forwarders: IdPatterns,
    ) -> None:
        self._registration = registration.unless_listed(forwarder_service, forwarders)
        self._identity, self._forwarder_service = identity, forwarder_service
        self._rules: Registration | None = None

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Raise `Refused` with the variable that would allow it."""
        if call.peer is not None:
            service = self._known_rules().refuses(call.origin, self._services_of(call.record))
            if service is not None:
                raise Refused(_reason(call.origin, service))
        return await rest.register(call)

    def _services_of(self, record: NetworkService | NetworkServiceEndpoint) -> list[str]:
        """What a record is registered for; a name of forwarders belongs to their service, so that they find it free."""
        if not isinstance(record, NetworkServiceEndpoint):
            return [record.name]
        if record.name == self._forwarder_service or record.name.startswith(f"{self._forwarder_service}-"):
            return [*record.network_service_names, self._forwarder_service]
        return record.network_service_names

    def _known_rules(self) -> Registration:
        if self._rules is None:  # not before there is an identity
            self._rules = self._registration.within(trust_domain_of(self._identity.spiffe_id))
        return self._rules


def _reason(spiffe_id: str, service: str) -> str:
    named = "an endpoint of no network service" if service == "*" else f"network service {service!r}"
    return f"no sufficient privileges: {spiffe_id} may not register for {named}; {VARIABLE} says who may"
