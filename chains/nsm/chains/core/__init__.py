"""The core of the SDK: elements, chains of elements, and the state of calls and connections."""

from nsm.chains.errors import (
    TRANSPORT,
    CloseRefused,
    Conflict,
    Exhausted,
    Internal,
    InvalidRequest,
    MeshError,
    NotFound,
    Refused,
    TimedOut,
    Tried,
    Unavailable,
    Unsupported,
    add_details,
    details_of,
    from_status,
    was_not_reached,
)

from . import counts
from .backoff import Backoff
from .begin import Begin, merge_with_returned
from .call import DEFAULT_TIMEOUT, Call, ClientToken, Undo
from .chain import Chain, Element, End, Handler, bind
from .descriptors import FileKey, Inbox, Received, file_key, inode_url, shown_url
from .events import EventFactory, Reselect, reselect_everything, reselect_same_endpoint
from .kinds import ENDPOINTS, SERVICES, Kind
from .limits import DEFAULT_LIMITS, Limits
from .peer import Peer
from .presence import Presence
from .registry import Found, R, RegistryCall, RegistryChain, RegistryElement, RegistryEnd, RegistryHandler, RegistryPath
from .store import Cleanup, Key, Store
from .tasks import Tasks, both_to_the_end, shielded, together

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_TIMEOUT",
    "ENDPOINTS",
    "SERVICES",
    "TRANSPORT",
    "Backoff",
    "Begin",
    "Call",
    "Chain",
    "Cleanup",
    "ClientToken",
    "CloseRefused",
    "Conflict",
    "Element",
    "End",
    "EventFactory",
    "Exhausted",
    "FileKey",
    "Found",
    "Handler",
    "Inbox",
    "Internal",
    "InvalidRequest",
    "Key",
    "Kind",
    "Limits",
    "MeshError",
    "NotFound",
    "Peer",
    "Presence",
    "R",
    "Received",
    "Refused",
    "RegistryCall",
    "RegistryChain",
    "RegistryElement",
    "RegistryEnd",
    "RegistryHandler",
    "RegistryPath",
    "Reselect",
    "Store",
    "Tasks",
    "TimedOut",
    "Tried",
    "Unavailable",
    "Undo",
    "Unsupported",
    "add_details",
    "bind",
    "both_to_the_end",
    "counts",
    "details_of",
    "file_key",
    "from_status",
    "inode_url",
    "merge_with_returned",
    "reselect_everything",
    "reselect_same_endpoint",
    "shielded",
    "shown_url",
    "together",
    "was_not_reached",
]
