"""Lets a forwarder that restarts as another pod take over the name of its predecessor.

If identities are those of pods, a forwarder's successor has the same name but another identity, and after a rollout of
everything, no component is left that could unregister the predecessor. So a name may be taken over between two
identities that both may vouch for others (NSM_INTERMEDIARIES), on the same node, for the same services. Neither gains
anything by that: whoever may vouch for others can register in any name already. Workloads are not affected: the name of
their endpoint becomes free when its record expires.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.policy import Trust

NODE = "nodeName"


def may_succeed(
    record: object, owner: Sequence[str], former: object, former_owner: Sequence[str], trust: Trust
) -> bool:
    """Whether `owner` may register `record` in place of `former`, which belongs to `former_owner`."""
    if not isinstance(record, NetworkServiceEndpoint) or not isinstance(former, NetworkServiceEndpoint):
        return False
    if len(owner) != 1 or len(former_owner) != 1:
        return False
    if not all(trust.intermediaries.matches(each) for each in (*owner, *former_owner)):
        return False
    same = sorted(record.network_service_names) == sorted(former.network_service_names)
    return same and bool(nodes := _nodes(record)) and nodes == _nodes(former)


def _nodes(record: NetworkServiceEndpoint) -> set[str]:
    """The nodes in the record's labels."""
    labels = [each.labels.get(NODE, "") for each in record.network_service_labels.values()]
    return {each for each in labels if each}
