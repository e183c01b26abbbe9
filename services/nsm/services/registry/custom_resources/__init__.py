"""A registry whose records are objects in a Kubernetes cluster, shared by several replicas, and by upstream's."""

from .chain import custom_resource_registry

__all__ = ["custom_resource_registry"]
