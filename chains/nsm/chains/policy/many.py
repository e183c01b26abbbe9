"""Which peers make calls on behalf of many clients, and so need higher limits than one client."""

from __future__ import annotations

from collections.abc import Callable

from nsm.chains.identity.svid import trust_domain_of

from .patterns import IdPatterns
from .registration import FORWARDERS, MANAGERS
from .trust import Trust

_USUAL = IdPatterns([*FORWARDERS.patterns, *MANAGERS.patterns])


def acts_for_many(trust: Trust, own_id: str) -> Callable[[str], bool]:
    """Whether a peer, by its SPIFFE ID, is a manager or a forwarder, for a component whose SPIFFE ID is `own_id`.

    It does if `trust` lets it vouch for others or, if no vouchers are listed, if it is in the component's own trust
    domain and named as managers and forwarders usually are.
    """
    usual = _USUAL.within(trust_domain_of(own_id))
    return lambda spiffe_id: trust.matches(spiffe_id) or (not trust.intermediaries and usual.matches(spiffe_id))
