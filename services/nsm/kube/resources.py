"""Names of resources and objects of the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object as the API server returns it: apiVersion, kind, metadata, and the fields of its kind."""

Key = tuple[str, str]
"""Namespace and name of an object; the namespace is empty for cluster-wide kinds."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, by the parts of its URL."""

    group: str
    """The API group; empty for the core one."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version, as in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL's path; without a namespace, for all namespaces; without a name, for the collection."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        within = f"namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(part for part in (root, within, self.plural, name, subresource) if part)

    def __str__(self) -> str:
        """As in `kubectl` and messages of the API server: `networkservices.networkservicemesh.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def key_of(found: Object) -> Key:
    """Namespace and name of an object."""
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICES = Resource("", "v1", "services", "Service")
