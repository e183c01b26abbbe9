"""A forwarder that is started again as another pod takes over the name of its predecessor.

Where identities are those of pods, the successor of a forwarder has the name of its predecessor and another identity,
and who rolls everything at once leaves nobody who could have unregistered the former. So the name may be taken over
between two identities that both may vouch for others (NSM_INTERMEDIARIES), on the same node, for the same services.
Neither gains anything by that: who may vouch for others could register in anybody's name already. Workloads are never
concerned: the name of an endpoint of theirs is free when its record ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.policy import Trust

NODE = "nodeName"


def may_succeed(
    record: object, owner: Sequence[str], former: object, former_owner: Sequence[str], trust: Trust
) -> bool:
    """Whether `owner` may register `record` in the place of `former`, which is of `former_owner`."""
    if not isinstance(record, NetworkServiceEndpoint) or not isinstance(former, NetworkServiceEndpoint):
        return False
    if len(owner) != 1 or len(former_owner) != 1:
        return False
    if not all(trust.intermediaries.matches(each) for each in (*owner, *former_owner)):
        return False
    same = sorted(record.network_service_names) == sorted(former.network_service_names)
    return same and bool(nodes := _nodes(record)) and nodes == _nodes(former)


def _nodes(record: NetworkServiceEndpoint) -> set[str]:
    """The nodes that the record says to be on."""
    labels = [each.labels.get(NODE, "") for each in record.network_service_labels.values()]
    return {each for each in labels if each}
