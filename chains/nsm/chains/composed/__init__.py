"""Ready-made chains for the services of the mesh and for your own endpoints and clients."""

from .client import client
from .endpoint import Endpoint, endpoint, monitors
from .nsmgr import Nsmgr, nsmgr
from .passthrough import passthrough
from .registry import Registry, RegistrySettings, memory_registry, stored_registry
from .registry_client import endpoints_client, learned_intermediaries, registry_at, services_client, signs_in

__all__ = [
    "Endpoint",
    "Nsmgr",
    "Registry",
    "RegistrySettings",
    "client",
    "endpoint",
    "endpoints_client",
    "learned_intermediaries",
    "memory_registry",
    "monitors",
    "nsmgr",
    "passthrough",
    "registry_at",
    "services_client",
    "signs_in",
    "stored_registry",
]
