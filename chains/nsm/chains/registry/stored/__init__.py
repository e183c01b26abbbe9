"""Registry records on any `Backend`: ownership, lifetimes and watches are implemented once, here."""

from .backend import Backend, Changed, Entry, Key, Missing
from .lives import EndpointLives, Lives, ServiceLives, is_live
from .memory_backend import MemoryBackend
from .quota import StoredQuota
from .rules import EndpointRules, Rules, ServiceRules
from .store import Stored
from .taken_names import RecordedNames

__all__ = [
    "Backend",
    "Changed",
    "EndpointLives",
    "EndpointRules",
    "Entry",
    "Key",
    "Lives",
    "MemoryBackend",
    "Missing",
    "RecordedNames",
    "Rules",
    "ServiceLives",
    "ServiceRules",
    "Stored",
    "StoredQuota",
    "is_live",
]
