"""Which services clients of other domains may use."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Refused
from nsm.chains.identity import Identity
from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.model.domains import split
from nsm.chains.policy import Admitted
from nsm.chains.policy.admitted import why_not


class AdmitDomains(Element):
    """Refuse a request that comes from another trust domain for a service that `admitted` does not list for it.

    Place it behind `Authorize`, which determines the client. A Close is never refused.
    """

    def __init__(self, admitted: Admitted, identity: Identity) -> None:
        self._admitted, self._identity = admitted, identity

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Raise `Refused`, naming the client and the variable that can allow it."""
        if call.peer is not None:
            domain = trust_domain_of(call.peer.spiffe_id)
            service = split(call.connection.network_service)[0]
            is_own = domain == trust_domain_of(self._identity.spiffe_id)
            if not is_own and not self._admitted.admits(domain, service):
                why = why_not(call.origin or call.peer.spiffe_id, service)
                raise Refused(why, remedy="add the domain and the service to NSM_ADMITTED_DOMAINS, if they may")
        return await rest.request(call)
