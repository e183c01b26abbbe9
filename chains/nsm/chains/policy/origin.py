"""The origin of a call: as far back in its path as the components on it are trusted to vouch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nsm.chains.core import Peer

from .tokens import claims_of
from .trust import Trust


class Vouchers(Protocol):
    """The identities that may vouch for others further back in a path."""

    @property
    def trust_domain(self) -> str:
        """Our own trust domain; empty if it is not known."""
        ...

    def matches(self, spiffe_id: str, /) -> bool:
        """Whether `spiffe_id` may."""
        ...


def verified_chain(tokens: Sequence[str], index: int, peer: Peer, vouchers: Vouchers) -> tuple[str, ...]:
    """The SPIFFE IDs of a path from its beginning to the first verified component.

    `tokens` are those of the path, `index` is this component's position in it. `peer` was verified by TLS and is at
    `index - 1`. It vouches for the component before it, which is trusted only if `peer` is an intermediary; that one in
    turn vouches for the one before it if it is an intermediary too, and so on. In the result, only the last ID is
    verified; those before it are claims. Two calls have the same owner if their whole results are equal.
    """
    position = min(index, len(tokens)) - 1
    subjects = [_subject(token) for token in tokens[: max(position, 0)]]
    return vouched_chain([*subjects, peer.spiffe_id], vouchers)


def vouched_chain(identities: Sequence[str], vouchers: Vouchers) -> tuple[str, ...]:
    """Of the identities along a path, the last of which is verified, those up to the first that is vouched for.

    An intermediary of another trust domain than ours vouches for identities of its own domain only.
    """
    chain = list(identities)
    while len(chain) > 1 and chain[-2] and vouchers.matches(chain[-1]) and _is_near(vouchers, *chain[-2:]):
        chain.pop()
    return tuple(chain)


def _is_near(vouchers: Vouchers, other: str, voucher: str) -> bool:
    """Whether the voucher is of our own trust domain, or of the other's."""
    domain = _domain(voucher)
    return vouchers.trust_domain in ("", domain) or domain == _domain(other)


def _domain(spiffe_id: str) -> str:
    return spiffe_id.removeprefix("spiffe://").partition("/")[0]


def verified_origin(tokens: Sequence[str], index: int, peer: Peer, vouchers: Vouchers) -> str:
    """The SPIFFE ID of the first verified component of a path; see `verified_chain`."""
    return verified_chain(tokens, index, peer, vouchers)[-1]


async def owner_of(tokens: Sequence[str], index: int, peer: Peer, trust: Trust) -> tuple[str, ...]:
    """`verified_chain` by `trust`; if a component on the path may not vouch, learned vouchers are refreshed first."""
    owner = verified_chain(tokens, index, peer, trust)
    if len(owner) > 1 and trust.learned is not None and await trust.learned.learn():
        return verified_chain(tokens, index, peer, trust)
    return owner


def owner_name(owner: tuple[str, ...]) -> str:
    """The owner's name in error messages; for a claimed identity, with the variable that would accept the claim."""
    if len(owner) == 1:
        return owner[0]
    return f"{owner[-1]}, which may not vouch for {owner[-2]} (NSM_INTERMEDIARIES)"


def _subject(token: str) -> str:
    claims = claims_of(token)
    return claims.subject if claims is not None else ""
