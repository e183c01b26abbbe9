"""A registry whose records are objects of a Kubernetes cluster: several replicas share them, and so may upstream's."""

from .chain import custom_resource_registry

__all__ = ["custom_resource_registry"]
