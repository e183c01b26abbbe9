"""Who may provide or define a network service."""

from __future__ import annotations

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import R, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.policy import IdPatterns, Registration
from nsm.chains.policy.registration import VARIABLE


class AllowServices(RegistryElement[R]):
    """Refuse a Register for a network service that the caller may not provide.

    Without a rule of its own, `forwarder_service` is open only to `forwarders`: a forwarder receives the requests of
    all clients of a node, with their network namespaces. The same holds for names of endpoints that begin with it:
    whoever took a forwarder's name first would keep it out. Patterns without a trust domain are for our own. Place it
    behind `RegistryAuthorize`, which determines the origin of a call.
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
        """Raise `Refused`, naming the variable that can allow it."""
        if call.peer is not None:
            service = self._known_rules().refuses(call.origin, self._services_of(call.record))
            if service is not None:
                raise Refused(_reason(call.origin, service))
        return await rest.register(call)

    def _services_of(self, record: NetworkService | NetworkServiceEndpoint) -> list[str]:
        """The services of a record; a forwarder-like name counts as their service, so that it stays free for them."""
        if not isinstance(record, NetworkServiceEndpoint):
            return [record.name]
        if record.name == self._forwarder_service or record.name.startswith(f"{self._forwarder_service}-"):
            return [*record.network_service_names, self._forwarder_service]
        return record.network_service_names

    def _known_rules(self) -> Registration:
        if self._rules is None:  # resolved once there is an identity
            self._rules = self._registration.within(trust_domain_of(self._identity.spiffe_id))
        return self._rules


def _reason(spiffe_id: str, service: str) -> str:
    named = "an endpoint without a network service" if service == "*" else f"network service {service!r}"
    return f"no sufficient privileges: {spiffe_id} may not register for {named}; {VARIABLE} controls who may"
