"""Names of the kinds of object that the API server keeps, and of single objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object as the API server writes it: apiVersion, kind, metadata, and what its kind has beyond that."""

Key = tuple[str, str]
"""Namespace and name of an object; the namespace is empty where the kind has none."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, by the words that stand in its URL."""

    group: str
    """The API group; empty for the core one."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The group and the version, as an object has them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL's path; without a namespace that of all of them, without a name that of the collection."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        within = f"namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(part for part in (root, within, self.plural, name, subresource) if part)

    def __str__(self) -> str:
        """As `kubectl` and the messages of the API server write it: `networkservices.networkservicemesh.io`."""
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
