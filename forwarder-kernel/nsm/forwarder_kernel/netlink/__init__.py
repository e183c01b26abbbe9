"""The kernel's network configuration, as this project needs it: nothing of the library below leaks out."""

from .messages import (
    Message,
    add_address,
    add_neighbor,
    add_route,
    create_veth,
    delete_group,
    delete_link,
    remove_address,
    remove_neighbor,
    remove_route,
    set_group,
    set_mtu,
    set_up,
)
from .namespaces import Namespace, Namespaces
from .sockets import Link, NetlinkError, Socket

__all__ = [
    "Link",
    "Message",
    "Namespace",
    "Namespaces",
    "NetlinkError",
    "Socket",
    "add_address",
    "add_neighbor",
    "add_route",
    "create_veth",
    "delete_group",
    "delete_link",
    "remove_address",
    "remove_neighbor",
    "remove_route",
    "set_group",
    "set_mtu",
    "set_up",
]
