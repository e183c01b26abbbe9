"""Parses and verifies tokens. Results are cached, since paths repeat."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jwt

from nsm.chains.core import Peer

MAX_TOKEN = 8 * 1024
"""The longest valid token, in characters. A real one has about 300."""
LEEWAY = 60.0
"""Seconds that a token's `nbf` may be ahead of our clock."""
_YEAR_9999 = 253370764800.0
_REMEMBERED = 4096
_REMEMBERED_LENGTH = 2048
"""Longer tokens are not cached: a sender of many may cost time, but not memory."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token: subject, audience, and validity (seconds since the epoch)."""

    subject: str
    audience: tuple[str, ...] | None
    """None if the claim is missing or not an array of strings."""
    expires: float
    not_before: float = 0.0


def claims_of(token: str) -> Claims | None:
    """The claims of a JWT, not verified; None if it is not a JWT, or if its times are invalid."""
    return _remembered_claims(token) if len(token) <= _REMEMBERED_LENGTH else _claims(token)


def is_signed_by(token: str, peer: Peer) -> bool:
    """Whether the ES256 signature of `token` was made with `peer`'s key."""
    if len(token) > _REMEMBERED_LENGTH:
        return len(token) <= MAX_TOKEN and _is_signed(token, peer)
    return _remembered_signature(token, peer.certificate_der, _Key(peer))


def latest_expiry(token: str, peer: Peer | None, lifetime: float) -> float:
    """The latest expiry (seconds since the epoch) of anything that `peer` obtains with `token`.

    That is the earliest of the token's expiry, the certificate's, and `lifetime` seconds from now.
    """
    ends = [time.time() + lifetime]
    if (claims := claims_of(token)) is not None:
        ends.append(claims.expires)
    if peer is not None:
        ends.append(peer.expires)
    return min(ends)


def _claims(token: str) -> Claims | None:
    if len(token) > MAX_TOKEN:
        return None
    try:
        raw = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, RecursionError, ValueError):
        return None
    subject, expires, not_before = raw.get("sub", ""), _time(raw.get("exp", 0)), _time(raw.get("nbf", 0))
    if not isinstance(subject, str) or expires is None or not_before is None:
        return None
    return Claims(subject, _audience(raw.get("aud")), expires, not_before)


_remembered_claims = lru_cache(maxsize=_REMEMBERED)(_claims)


def _audience(claim: Any) -> tuple[str, ...] | None:
    if not isinstance(claim, list) or not all(isinstance(each, str) for each in claim):
        return None
    return tuple(claim)


def _time(claim: Any) -> float | None:
    """A NumericDate (RFC 7519 2) as seconds since the epoch; None if it is not a time before the year 9999."""
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return None
    if not 0 <= claim < _YEAR_9999 or (isinstance(claim, float) and not math.isfinite(claim)):
        return None
    return float(claim)


def _is_signed(token: str, peer: Peer) -> bool:
    try:
        jwt.decode(
            token,
            peer.public_key,
            algorithms=["ES256"],
            options={"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False},
        )
    except (jwt.InvalidTokenError, RecursionError, TypeError, ValueError):
        return False
    return True


@lru_cache(maxsize=_REMEMBERED)
def _remembered_signature(token: str, certificate_der: bytes, key: _Key) -> bool:
    del certificate_der  # only part of the cache key
    return _is_signed(token, key.peer)


class _Key:
    """A peer that is equal to any other in the cache key, which contains its certificate already."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key)
