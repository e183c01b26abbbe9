"""A registry in etcd, shared by several replicas."""

from .chain import etcd_registry

__all__ = ["etcd_registry"]
