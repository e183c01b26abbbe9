"""Removes what is left of a wire that nobody can ask to be closed any more."""

from __future__ import annotations

from nsm.forwarder_kernel.netlink import Socket, delete_link

from . import namespaces

_OURS = "nsm "
"""How the alias of an interface begins that a forwarder has made."""


def remove_interface(network: int, name: str) -> None:
    """Remove the interface called `name` from a network namespace if it is a wire's. Raises `NetlinkError`."""

    def remove() -> None:
        namespaces.enter(network, namespaces.NEW_NET)
        socket = Socket("the namespace of a client")
        link = socket.link(name=name)
        if link is not None and link.alias.startswith(_OURS):
            socket.apply([delete_link(link.index)])
        socket.close()

    namespaces.in_thread(remove)
