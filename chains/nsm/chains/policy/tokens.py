"""Reading tokens: what they claim, and whether a key signed them. Both are remembered, since paths repeat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import jwt

from nsm.chains.core import Peer

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token claims: who made it, for whom, until when (seconds since the epoch)."""

    subject: str
    audience: tuple[str, ...] | None
    """None if the claim is missing or no array."""
    expires: float


@lru_cache(maxsize=_REMEMBERED)
def claims_of(token: str) -> Claims | None:
    """The claims of a JWT, not verified; None if it is none."""
    try:
        raw = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    subject, audience, expires = raw.get("sub", ""), raw.get("aud"), raw.get("exp", 0)
    if not isinstance(subject, str) or not isinstance(expires, int | float):
        return None
    return Claims(subject, tuple(audience) if isinstance(audience, list) else None, float(expires))


def is_signed_by(token: str, peer: Peer) -> bool:
    """Whether `peer`'s key made the ES256 signature of `token`."""
    return _is_signed(token, peer.certificate_der, _Key(peer))


@lru_cache(maxsize=_REMEMBERED)
def _is_signed(token: str, certificate_der: bytes, key: _Key) -> bool:
    del certificate_der  # what the answer depends on, beside the token
    try:
        jwt.decode(
            token,
            key.peer.public_key,
            algorithms=["ES256"],
            options={"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False},
        )
    except (jwt.InvalidTokenError, TypeError, ValueError):
        return False
    return True


class _Key:
    """A peer that the cache does not look at: its certificate is part of the cache's key already."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key)
