"""Identity by SPIFFE: X.509-SVIDs, verified peers, tokens."""

from .authority import Authority
from .identity import Bundles, Identity
from .svid import Svid, spiffe_id_of, split_certificates, trust_domain_of

__all__ = ["Authority", "Bundles", "Identity", "Svid", "spiffe_id_of", "split_certificates", "trust_domain_of"]
