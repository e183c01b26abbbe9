"""Who may do what: the policies of NSM as native functions over the tokens of a path."""

from .answers import refusal_of_answer
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

__all__ = [
    "CLIENT_MASKS",
    "REGISTRY_CLIENT_MASKS",
    "REGISTRY_SERVER_MASKS",
    "SERVER_MASKS",
    "Claims",
    "Path",
    "Policy",
    "PolicySet",
    "claims_of",
    "is_signed_by",
    "next_token_signed",
    "prev_token_signed",
    "refusal_of_answer",
    "tokens_chained",
    "tokens_expired",
    "tokens_valid",
]
