"""A registry in etcd: several replicas share it, and it survives whatever etcd survives."""

from .chain import etcd_registry

__all__ = ["etcd_registry"]
