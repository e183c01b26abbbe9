"""The API server of a Kubernetes cluster: connect to it, read and write objects, keep up with their changes.

    async with connect() as api, Reflector(api, NODES) as nodes:
        await nodes.synced()
        print(len(nodes.objects))
        async for change in nodes.changes():
            print(change.key, "went" if change.now is None else "is there")

Objects are plain dicts, as the API server writes them. lightkube knows how to reach a server (kubeconfig, service
account, tokens that rotate, TLS); its own client cannot ask for bookmarks or set preconditions, and loses what the
server says when it refuses a watch, so requests are ours.
"""

from .api import Api, Listing, PatchType, WatchEvent
from .connect import connect
from .errors import Forbidden, Gone, NoCluster, ObjectConflict, ObjectMissing, Rejected, Unauthorized, Unreachable
from .events import warn
from .reflector import Change, Reflector
from .resources import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Key,
    Object,
    Resource,
    key_of,
)

__all__ = [
    "CONFIG_MAPS",
    "EVENTS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICES",
    "Api",
    "Change",
    "Forbidden",
    "Gone",
    "Key",
    "Listing",
    "NoCluster",
    "Object",
    "ObjectConflict",
    "ObjectMissing",
    "PatchType",
    "Reflector",
    "Rejected",
    "Resource",
    "Unauthorized",
    "Unreachable",
    "WatchEvent",
    "connect",
    "key_of",
    "warn",
]
