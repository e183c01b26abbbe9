"""Ready-made chains for the services of the mesh and for your own endpoints and clients."""

from .beyond import Beyond, beyond
from .client import client
from .endpoint import Endpoint, endpoint, monitors
from .nsmgr import Nsmgr, nsmgr
from .nsmgr_proxy import NsmgrProxy, nsmgr_proxy
from .passthrough import passthrough
from .registry import Registry, RegistrySettings, memory_registry, stored_registry
from .registry_client import (
    endpoints_client,
    learned_intermediaries,
    registry_at,
    services_at,
    services_client,
    signs_in,
)
from .registry_proxy import RegistryProxy, registry_proxy

__all__ = [
    "Beyond",
    "Endpoint",
    "Nsmgr",
    "NsmgrProxy",
    "Registry",
    "RegistryProxy",
    "RegistrySettings",
    "beyond",
    "client",
    "endpoint",
    "endpoints_client",
    "learned_intermediaries",
    "memory_registry",
    "monitors",
    "nsmgr",
    "nsmgr_proxy",
    "passthrough",
    "registry_at",
    "registry_proxy",
    "services_at",
    "services_client",
    "signs_in",
    "stored_registry",
]
