"""A connection, its path, and the stream of its events."""

from nsm.apis._generated.connection import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    Mechanism,
    MonitorConnectionBase,
    MonitorConnectionStub,
    MonitorScopeSelector,
    Path,
    PathSegment,
    State,
)

__all__ = [
    "Connection",
    "ConnectionEvent",
    "ConnectionEventType",
    "Mechanism",
    "MonitorConnectionBase",
    "MonitorConnectionStub",
    "MonitorScopeSelector",
    "Path",
    "PathSegment",
    "State",
]
