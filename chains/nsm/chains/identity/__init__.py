"""Identity by SPIFFE: X.509-SVIDs, verified peers, tokens."""

from .authority import Authority
from .certificate_builder import certificate_builder
from .identity import Bundles, Identity, presented_chain, verify_chain
from .pem import load_chain
from .svid import Svid, spiffe_id_of, split_certificates, trust_domain_of

__all__ = [
    "Authority",
    "Bundles",
    "Identity",
    "Svid",
    "certificate_builder",
    "load_chain",
    "presented_chain",
    "spiffe_id_of",
    "split_certificates",
    "trust_domain_of",
    "verify_chain",
]
