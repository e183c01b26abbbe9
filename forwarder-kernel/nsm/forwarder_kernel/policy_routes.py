"""Policy routes: packets of a client that a policy selects go over the wire by a table of their own.

The rules and tables are in the client's namespace; see `policy_tables`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import Call, Conflict, Element, Handler, Key, MeshError, Refused, both_to_the_end

from .ends import order_of
from .kernel_thread import KernelThread
from .netlink import Namespace, Namespaces
from .policies import Policies, Routes, policies_of
from .policy_tables import FROM_1, PolicyLink, has_any, install


class PolicyRoutes(Element):
    """Install the policies that the endpoint gave to the client; keep them in step, remove them with the connection.

    Stands in the server's chain before what makes the wire, and works where the client's side is a kernel interface.
    A refresh that changes nothing touches nothing. Raises `InvalidRequest` for a policy that cannot be, and
    `NetlinkError` for one that the kernel refuses; the connection's policies are as before then.
    """

    def __init__(self, kernel: KernelThread, tables: str = FROM_1) -> None:
        """`tables` says which numbers they get: `policy_tables.FROM_1` or `RESERVED`."""
        self._kernel, self._tables = kernel, tables
        self._installed: Key[_Installed] = Key("policy routes")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the wire be made, then install."""
        connection = await rest.request(call)
        near = connection.mechanism
        if near is None or near.type != KERNEL:
            return connection
        policies = policies_of(_ip_context(connection), has_frames=connection.payload == ETHERNET)
        installed = call.live.get(self._installed)
        if installed is None:
            installed = call.live.put(self._installed, _Installed(order_of(connection)))
            call.undo.add(lambda: self._remove(call))
        elif not policies and not installed.policies:
            return connection
        await self._kernel.in_node(lambda spaces: self._install(spaces, installed, near, policies))
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove them while those further on close."""
        await both_to_the_end(rest.close(call), self._remove(call))

    async def _remove(self, call: Call) -> None:
        if (installed := call.live.pop(self._installed)) is not None:
            await self._kernel.in_node(lambda spaces: self._uninstall(spaces, installed))

    # --- in the kernel's thread

    def _install(self, spaces: Namespaces, installed: _Installed, near: Mechanism, policies: Policies) -> None:
        place = near.parameters.get(INODE_URL, ""), near.parameters.get(INTERFACE_NAME, "")
        if place != installed.place:
            self._uninstall(spaces, installed)
            installed.place = place
        namespace = installed.namespace = installed.namespace or spaces.take(place[0].removeprefix("file://"))
        try:
            _protect_node(spaces, namespace, policies)
            if policies or installed.policies or has_any(namespace.socket):
                self._keep_in_step(installed, namespace, policies)
        finally:
            if not installed.policies:
                _let_go(spaces, installed)

    def _keep_in_step(self, installed: _Installed, namespace: Namespace, policies: Policies) -> None:
        name = installed.place[1]
        link = namespace.socket.link(name=name)
        if link is None:
            raise Conflict(f"there is no interface {name!r} in {namespace.where} to route by")
        if (link.index, _in_order(policies)) != (installed.index, _in_order(installed.policies)):
            self._change(installed, namespace, link.index, policies)

    def _change(self, installed: _Installed, namespace: Namespace, index: int, policies: Policies) -> None:
        before = installed.policies if index == installed.index else {}
        link = PolicyLink(index, installed.place[1], installed.order)
        try:
            install(namespace, link, policies, self._tables)
        except MeshError:
            with contextlib.suppress(MeshError):
                install(namespace, link, before, self._tables)
            raise
        installed.index, installed.policies = index, policies

    def _uninstall(self, spaces: Namespaces, installed: _Installed) -> None:
        if installed.namespace is not None:
            try:
                install(installed.namespace, PolicyLink(installed.index, installed.place[1], installed.order), {})
            finally:
                _let_go(spaces, installed)


@dataclass(slots=True)
class _Installed:
    """What one connection has; its namespace is held for as long as there are policies."""

    order: int
    """The place of its wire among those of its client."""
    place: tuple[str, str] = "", ""
    """URL of the namespace, and the interface's name there."""
    namespace: Namespace | None = None
    index: int = 0
    policies: Policies = field(default_factory=dict)


def _let_go(spaces: Namespaces, installed: _Installed) -> None:
    if installed.namespace is not None:
        spaces.give(installed.namespace)
    installed.namespace, installed.index, installed.policies = None, 0, {}


def _protect_node(spaces: Namespaces, namespace: Namespace, policies: Policies) -> None:
    """Rules come before all routes: in the node's own namespace they are for packets of the wire only."""
    if os.path.sameopenfile(namespace.descriptor, spaces.own.descriptor):
        for selector in policies:
            if selector.source is None or not selector.source.prefixlen:
                raise Refused(f"the policy {selector} is for packets of the node itself; it has to name a source")


def _ip_context(connection: Connection) -> IpContext:
    context = connection.context
    return context.ip_context if context is not None and context.ip_context is not None else IpContext()


def _in_order(policies: Policies) -> list[tuple[object, Routes]]:
    return list(policies.items())
