"""gRPC over mTLS, on unix sockets (with descriptors beside the bytes) and TCP."""

from .channel import DIAL_TIMEOUT, Channel, Pool
from .credentials import Credentials
from .monitors import Listener, Monitors, RemoteEvents, Subscription
from .rpc import (
    CLOSE_PATIENCE,
    Health,
    MonitorHandler,
    RemoteMonitor,
    RemoteNetworkService,
    RemoteRegistry,
    check_health,
    monitor,
    network_service,
    registry,
)
from .server import Conversing, Incoming, Method, Methods, Streaming, Unary, serve, serve_plain
from .shown_certificate import shown_certificate
from .sockets import SocketAccess
from .urls import Address, parse_address, publishable

__all__ = [
    "CLOSE_PATIENCE",
    "DIAL_TIMEOUT",
    "Address",
    "Channel",
    "Conversing",
    "Credentials",
    "Health",
    "Incoming",
    "Listener",
    "Method",
    "Methods",
    "MonitorHandler",
    "Monitors",
    "Pool",
    "RemoteEvents",
    "RemoteMonitor",
    "RemoteNetworkService",
    "RemoteRegistry",
    "SocketAccess",
    "Streaming",
    "Subscription",
    "Unary",
    "check_health",
    "monitor",
    "network_service",
    "parse_address",
    "publishable",
    "registry",
    "serve",
    "serve_plain",
    "shown_certificate",
]
