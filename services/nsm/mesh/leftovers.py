"""Removes leftovers of a wire that no component can close any more."""

from __future__ import annotations

from nsm.forwarder_kernel.netlink import Socket, delete_link

from . import namespaces

_OURS = "nsm "
"""The beginning of the alias of every interface that a forwarder created."""


def remove_interface(network: int, name: str) -> None:
    """Remove the interface `name` from a network namespace if it belongs to a wire. Raises `NetlinkError`."""

    def remove() -> None:
        namespaces.enter(network, namespaces.NEW_NET)
        socket = Socket("the namespace of a client")
        link = socket.link(name=name)
        if link is not None and link.alias.startswith(_OURS):
            socket.apply([delete_link(link.index)])
        socket.close()

    namespaces.in_thread(remove)
