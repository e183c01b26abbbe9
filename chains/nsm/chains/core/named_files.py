"""Files that messages name: a descriptor that travels beside them may be used, a path of the sender's may not.

A path would be opened with the rights of the component that reads the message. So no path passes from a peer into a
chain, neither in a request nor in an answer, and any path inside a chain is this component's own.
"""

from __future__ import annotations

from nsm.apis.connection import Mechanism
from nsm.apis.mechanisms import INODE_URL
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.errors import Refused

from .descriptors import shown_url


def mechanisms_of(request: NetworkServiceRequest) -> list[Mechanism]:
    """All mechanisms of a request, or of an answer put into one."""
    chosen = request.connection.mechanism if request.connection is not None else None
    return [*request.mechanism_preferences, *([chosen] if chosen is not None else [])]


def is_path(mechanism: Mechanism) -> bool:
    """Whether it names a file in any other way than as a descriptor."""
    url = mechanism.parameters.get(INODE_URL, "")
    return bool(url) and not url.startswith("inode://")


def refuse_paths(request: NetworkServiceRequest, whose: str) -> None:
    """Raise `Refused` if a path is named; `whose` names the sender in the error."""
    for mechanism in mechanisms_of(request):
        if is_path(mechanism):
            url = shown_url(mechanism.parameters[INODE_URL])
            raise Refused(f"{url} is a path of {whose}; a namespace is passed as a descriptor, on a unix socket")
