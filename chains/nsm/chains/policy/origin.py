"""Who a call comes from at first: as far back in its path as those who vouch for it may vouch."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.core import Peer

from .patterns import IdPatterns
from .tokens import claims_of


def verified_origin(tokens: Sequence[str], index: int, peer: Peer, intermediaries: IdPatterns) -> str:
    """The SPIFFE ID of the first component of a path that is verified.

    `tokens` are those of the path, `index` is this component's place in it. `peer` was verified by TLS and stands at
    `index - 1`. It says who was there before it, which is believed only of an intermediary; that one in turn vouches
    for the one before if it is an intermediary too, and so on to the beginning.
    """
    position, verified = min(index, len(tokens)) - 1, peer.spiffe_id
    while position > 0 and intermediaries.matches(verified):
        position -= 1
        claims = claims_of(tokens[position])
        if claims is None or not claims.subject:
            break
        verified = claims.subject
    return verified
