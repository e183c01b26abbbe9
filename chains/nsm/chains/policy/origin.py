"""Who a call comes from at first: as far back in its path as those who vouch for it may vouch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nsm.chains.core import Peer

from .tokens import claims_of
from .trust import Trust


class Vouchers(Protocol):
    """Who may vouch for others further back in a path."""

    def matches(self, spiffe_id: str, /) -> bool:
        """Whether `spiffe_id` may."""
        ...


def verified_chain(tokens: Sequence[str], index: int, peer: Peer, vouchers: Vouchers) -> tuple[str, ...]:
    """The SPIFFE IDs of a path from its beginning to the first component that is verified.

    `tokens` are those of the path, `index` is this component's place in it. `peer` was verified by TLS and stands at
    `index - 1`. It says who was there before it, which is believed only of an intermediary; that one in turn vouches
    for the one before if it is an intermediary too, and so on. What comes before the last of the result is claimed
    and nothing more: two calls are of one owner if all of it is equal.
    """
    position = min(index, len(tokens)) - 1
    subjects = [_subject(token) for token in tokens[: max(position, 0)]]
    return vouched_chain([*subjects, peer.spiffe_id], vouchers)


def vouched_chain(identities: Sequence[str], vouchers: Vouchers) -> tuple[str, ...]:
    """Of the identities along a path, whose last one is verified, those up to the first one that is vouched for."""
    chain = list(identities)
    while len(chain) > 1 and chain[-2] and vouchers.matches(chain[-1]):
        chain.pop()
    return tuple(chain)


def verified_origin(tokens: Sequence[str], index: int, peer: Peer, vouchers: Vouchers) -> str:
    """The SPIFFE ID of the first component of a path that is verified; see `verified_chain`."""
    return verified_chain(tokens, index, peer, vouchers)[-1]


async def owner_of(tokens: Sequence[str], index: int, peer: Peer, trust: Trust) -> tuple[str, ...]:
    """`verified_chain` by `trust`; asks anew who may vouch, where that is learned, if somebody on the path may not."""
    owner = verified_chain(tokens, index, peer, trust)
    if len(owner) > 1 and trust.learned is not None and await trust.learned.learn():
        return verified_chain(tokens, index, peer, trust)
    return owner


def owner_name(owner: tuple[str, ...]) -> str:
    """An owner as an error names it, and what would have it believed."""
    if len(owner) == 1:
        return owner[0]
    return f"{owner[-1]}, which may not vouch for {owner[-2]} (NSM_INTERMEDIARIES)"


def _subject(token: str) -> str:
    claims = claims_of(token)
    return claims.subject if claims is not None else ""
