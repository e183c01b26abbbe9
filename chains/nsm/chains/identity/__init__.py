"""Identity by SPIFFE: X.509-SVIDs, verified peers, tokens."""

from .authority import Authority
from .identity import Bundles, Identity
from .pem import load_chain
from .svid import Svid, spiffe_id_of, split_certificates, trust_domain_of
from .unsigned import unsigned

__all__ = [
    "Authority",
    "Bundles",
    "Identity",
    "Svid",
    "load_chain",
    "spiffe_id_of",
    "split_certificates",
    "trust_domain_of",
    "unsigned",
]
