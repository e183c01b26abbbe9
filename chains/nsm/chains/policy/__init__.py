"""Who may do what: the policies of NSM as native functions over the tokens of a path."""

from .answers import refusal_of_answer
from .origin import verified_origin
from .patterns import NOBODY, IdPatterns
from .policies import (
    CLIENT_MASKS,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    Path,
    Policy,
    PolicySet,
    next_token_signed,
    prev_token_signed,
    tokens_chained,
    tokens_expired,
    tokens_valid,
)
from .tokens import Claims, claims_of, is_signed_by
from .trust import Trust

__all__ = [
    "CLIENT_MASKS",
    "NOBODY",
    "REGISTRY_CLIENT_MASKS",
    "REGISTRY_SERVER_MASKS",
    "SERVER_MASKS",
    "Claims",
    "IdPatterns",
    "Path",
    "Policy",
    "PolicySet",
    "Trust",
    "claims_of",
    "is_signed_by",
    "next_token_signed",
    "prev_token_signed",
    "refusal_of_answer",
    "tokens_chained",
    "tokens_expired",
    "tokens_valid",
    "verified_origin",
]
