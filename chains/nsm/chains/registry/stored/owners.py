"""Whose a stored record is, by the identities of the path that it came by.

The last one of a record's `path_ids` is the registry's own. Those before it are what the tokens of the path said, the
first one being who the registration began at: that one is believed as far back as those behind it may vouch for others.
"""

from __future__ import annotations

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.policy import Trust, vouched_chain


def owners_of(record: NetworkService | NetworkServiceEndpoint, trust: Trust) -> tuple[str, ...]:
    """Who the record belongs to; the last one is verified, those before it are what that one says. Needs `path_ids`."""
    return vouched_chain(record.path_ids[:-1] or record.path_ids, trust)
