"""The kernel's network configuration, as this project needs it: the library below stays hidden."""

from .changes import Changes
from .elsewhere import delete_link_there
from .encoding import Address, Interface, Message, Network
from .messages import (
    LinkEnd,
    add_address,
    add_neighbor,
    add_route,
    add_vxlan_peer,
    create_macvlan,
    create_veth,
    create_vlan,
    create_vxlan,
    create_wireguard,
    delete_group,
    delete_link,
    keep_asking,
    metric_of,
    remove_address,
    remove_neighbor,
    remove_route,
    rename,
    set_group,
    set_mtu,
    set_up,
)
from .namespaces import Namespace, Namespaces
from .news import Listener, News
from .sockets import Link, NetlinkError, Socket, is_own
from .wireguard import KEEPALIVE, WireguardSocket

__all__ = [
    "KEEPALIVE",
    "Address",
    "Changes",
    "Interface",
    "Link",
    "LinkEnd",
    "Listener",
    "Message",
    "Namespace",
    "Namespaces",
    "NetlinkError",
    "Network",
    "News",
    "Socket",
    "WireguardSocket",
    "add_address",
    "add_neighbor",
    "add_route",
    "add_vxlan_peer",
    "create_macvlan",
    "create_veth",
    "create_vlan",
    "create_vxlan",
    "create_wireguard",
    "delete_group",
    "delete_link",
    "delete_link_there",
    "is_own",
    "keep_asking",
    "metric_of",
    "remove_address",
    "remove_neighbor",
    "remove_route",
    "rename",
    "set_group",
    "set_mtu",
    "set_up",
]
