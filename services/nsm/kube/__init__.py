"""The API server of a Kubernetes cluster: connect to it, read and write objects, follow their changes.

    async with connect() as api, Reflector(api, NODES) as nodes:
        await nodes.synced()
        print(len(nodes.objects))
        async for change in nodes.changes():
            print(change.key, "deleted" if change.now is None else "present")

Objects are plain dicts, as the API server returns them. lightkube connects to a server (kubeconfig, service account,
rotating tokens, TLS). Its own client cannot request bookmarks or set preconditions, and drops the server's message when
a watch is refused, so requests are made here.
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
