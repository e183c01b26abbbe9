"""Authorization: NSM's policies as native functions over the tokens of a path."""

from . import documents
from .admitted import Admitted, Admitting
from .hosts import NO_HOSTS, Hosts
from .many import acts_for_many
from .origin import owner_name, owner_of, verified_chain, verified_origin, vouched_chain
from .patterns import NOBODY, IdPatterns
from .policies import (
    CLIENT_MASKS,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    Path,
    Policy,
    PolicySet,
    answerer_is_named,
    caller_is_named,
    certificate_is_valid,
    next_token_signed,
    prev_token_signed,
    tokens_chained,
    tokens_expired,
    tokens_valid,
)
from .registration import FORWARDERS, MANAGERS, Registration
from .tokens import LEEWAY, Claims, claims_of, is_signed_by, latest_expiry
from .trust import NO_TRUST, Learned, Trust, Trusting
from .variables import ClientPolicies, RegistryClientPolicies, RegistryServerPolicies, ServerPolicies, masks
from .verify_answer import refusal_of_answer

__all__ = [
    "CLIENT_MASKS",
    "FORWARDERS",
    "LEEWAY",
    "MANAGERS",
    "NOBODY",
    "NO_HOSTS",
    "NO_TRUST",
    "REGISTRY_CLIENT_MASKS",
    "REGISTRY_SERVER_MASKS",
    "SERVER_MASKS",
    "Admitted",
    "Admitting",
    "Claims",
    "ClientPolicies",
    "Hosts",
    "IdPatterns",
    "Learned",
    "Path",
    "Policy",
    "PolicySet",
    "Registration",
    "RegistryClientPolicies",
    "RegistryServerPolicies",
    "ServerPolicies",
    "Trust",
    "Trusting",
    "acts_for_many",
    "answerer_is_named",
    "caller_is_named",
    "certificate_is_valid",
    "claims_of",
    "documents",
    "is_signed_by",
    "latest_expiry",
    "masks",
    "next_token_signed",
    "owner_name",
    "owner_of",
    "prev_token_signed",
    "refusal_of_answer",
    "tokens_chained",
    "tokens_expired",
    "tokens_valid",
    "verified_chain",
    "verified_origin",
    "vouched_chain",
]
