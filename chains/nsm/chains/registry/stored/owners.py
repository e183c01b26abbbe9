"""The owner of a stored record, by the identities of its registration's path.

The last of a record's `path_ids` is the registry's own. Those before it are the subjects of the path's tokens, starting
with the registration's origin: it is trusted as far back as the components after it may vouch for others.
"""

from __future__ import annotations

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.policy import Trust, vouched_chain


def owners_of(record: NetworkService | NetworkServiceEndpoint, trust: Trust) -> tuple[str, ...]:
    """The record's owner; the last identity is verified, those before it are its claims. Needs `path_ids`."""
    return vouched_chain(record.path_ids[:-1] or record.path_ids, trust)
