"""What messages name: a descriptor that comes beside them is of use, a path of the sender's is not.

A path would be opened with the rights of whoever reads the message. So none passes from a peer into a chain, neither in
a request nor in an answer, and whatever path is met inside is this component's own.
"""

from __future__ import annotations

from nsm.apis.connection import Mechanism
from nsm.apis.mechanisms import INODE_URL
from nsm.apis.networkservice import NetworkServiceRequest

from .descriptors import shown_url
from .errors import Refused


def mechanisms_of(request: NetworkServiceRequest) -> list[Mechanism]:
    """All that a request, or an answer put into one, says of mechanisms."""
    chosen = request.connection.mechanism if request.connection is not None else None
    return [*request.mechanism_preferences, *([chosen] if chosen is not None else [])]


def is_path(mechanism: Mechanism) -> bool:
    """Whether it names a file by anything but a descriptor."""
    url = mechanism.parameters.get(INODE_URL, "")
    return bool(url) and not url.startswith("inode://")


def refuse_paths(request: NetworkServiceRequest, whose: str) -> None:
    """Raise `Refused` if a path is named; `whose` says in the error who named it."""
    for mechanism in mechanisms_of(request):
        if is_path(mechanism):
            url = shown_url(mechanism.parameters[INODE_URL])
            raise Refused(f"{url} is a path of {whose}; a namespace is passed as a descriptor, on a unix socket")
