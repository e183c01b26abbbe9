"""Whom an endpoint believes about its clients."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nsm.chains.composed import learned_intermediaries
from nsm.chains.config import variable
from nsm.chains.policy import IdPatterns, Trust, Trusting
from nsm.chains.transport import Pool


@dataclass(frozen=True, kw_only=True)
class EndpointTrusting(Trusting):
    """What every endpoint reads that registers at a manager; each says itself where that is, in `connect_to`."""

    intermediaries: IdPatterns = variable(
        "",
        IdPatterns.parse,
        "SPIFFE IDs that may vouch for clients, patterns a,b; empty: the mesh's forwarders and managers, as registered",
    )
    connect_to: str

    def trust_by(self, pool: Pool) -> Trust:
        """Whom to believe: who is listed, or with nobody listed the forwarders and managers that the manager knows."""
        if self.intermediaries:
            return self.trust
        return replace(self.trust, learned=learned_intermediaries(self.connect_to, pool))
