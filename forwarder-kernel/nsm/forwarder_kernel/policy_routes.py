"""Policy routes: packets of a client that a policy selects go over the wire by a table of their own.

The rules and tables are in the client's namespace; see `policy_tables`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import IpContext
from nsm.apis.mechanisms import INODE_URL, INTERFACE_NAME, KERNEL
from nsm.apis.payloads import ETHERNET
from nsm.chains.core import (
    Call,
    Conflict,
    Element,
    FileKey,
    Handler,
    Key,
    MeshError,
    Refused,
    Store,
    both_to_the_end,
)
from nsm.chains.elements.idle import hold
from nsm.chains.forwarding.wires import order_of
from nsm.chains.netlink import Namespace, Namespaces
from nsm.chains.netlink.rules import Selector

from .kernel_thread import KernelThread
from .live_wire import live_in
from .policies import Policies, Routes, policies_of
from .policy_tables import FROM_1, PolicyLink, has_any, incomplete, install


class PolicyRoutes(Element):
    """Install the policies that the endpoint gave to the client; update them, and remove them with the connection.

    Stands in the server's chain before the element that makes the wire, for clients with a kernel interface.
    A refresh without changes touches nothing. Raises `InvalidRequest` for an invalid policy, and
    `NetlinkError` for one that the kernel refuses; the connection's policies stay as before then.
    """

    def __init__(self, kernel: KernelThread, tables: str = FROM_1) -> None:
        """`tables` sets which numbers they get: `policy_tables.FROM_1` or `RESERVED`."""
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
        live = live_in(call.live)
        index = live.ends[0].index if live is not None and live.ends else 0
        try:
            await self._kernel.in_node(lambda spaces: self._install(spaces, installed, near, index, policies))
        finally:
            if installed.namespace is not None:
                hold(call.live, self, partial(self._let_go, call.live))
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove them while the components behind close."""
        await both_to_the_end(rest.close(call), self._remove(call))

    def has_any(self, store: Store) -> bool:
        """Whether a connection has policies."""
        installed = store.get(self._installed)
        return installed is not None and bool(installed.policies)

    async def repair(self, store: Store, *, do: bool) -> list[Selector]:
        """The policies of a connection that have lost rules or routes; with `do` they are restored."""
        installed = store.get(self._installed)
        if installed is None or not installed.policies or self._kernel.is_closed:
            return []
        return await self._kernel.in_node(lambda spaces: self._repair(spaces, installed, do=do))

    async def _remove(self, call: Call) -> None:
        if (installed := call.live.pop(self._installed)) is not None:
            await self._kernel.in_node(lambda spaces: _uninstall(spaces, installed))

    async def _let_go(self, store: Store) -> None:
        if (installed := store.get(self._installed)) is not None and not self._kernel.is_closed:
            await self._kernel.in_node(lambda spaces: _give(spaces, installed))

    # --- in the kernel's thread

    def _install(
        self, spaces: Namespaces, installed: _Installed, near: Mechanism, index: int, policies: Policies
    ) -> None:
        url, name = near.parameters.get(INODE_URL, ""), near.parameters.get(INTERFACE_NAME, "")
        namespace = spaces.take(url.removeprefix("file://"))
        if (namespace.key, name) != (installed.key, installed.name):
            _uninstall(spaces, installed)
        _give(spaces, installed)
        installed.namespace, installed.key, installed.name = namespace, namespace.key, name
        spaces.identify(namespace)
        installed.handle, installed.number = namespace.handle, namespace.number
        try:
            _protect_node(spaces, namespace, policies)
            if policies or installed.policies or has_any(namespace.socket):
                self._keep_in_step(installed, namespace, index, policies)
        finally:
            if not installed.policies:
                _forget(spaces, installed)

    def _keep_in_step(self, installed: _Installed, namespace: Namespace, index: int, policies: Policies) -> None:
        name = installed.name
        link = namespace.socket.link(index=index) if index else namespace.socket.link(name=name)
        if link is None:
            raise Conflict(f"there is no interface {name!r} in {namespace.where} to route by")
        if (link.index, _in_order(policies)) != (installed.index, _in_order(installed.policies)):
            self._change(installed, namespace, link.index, policies)

    def _change(self, installed: _Installed, namespace: Namespace, index: int, policies: Policies) -> None:
        before = installed.policies if index == installed.index else {}
        link = PolicyLink(index, installed.name, installed.order)
        try:
            tables = install(namespace, link, policies, self._tables)
        except MeshError:
            with contextlib.suppress(MeshError):
                install(namespace, link, before, self._tables)
            raise
        installed.index, installed.policies, installed.tables = index, policies, tables

    def _repair(self, spaces: Namespaces, installed: _Installed, *, do: bool) -> list[Selector]:
        with installed.entered(spaces) as namespace:
            if namespace is None or not namespace.socket.has_link(installed.index):
                return []
            link = PolicyLink(installed.index, installed.name, installed.order)
            lost = incomplete(namespace, link, installed.policies, installed.tables)
            if lost and do:
                installed.tables = install(namespace, link, installed.policies, self._tables, installed.tables)
            return lost


@dataclass(slots=True)
class _Installed:
    """The policies of one connection; its namespace is held while the connection is in use."""

    order: int
    """The place of its wire among those of its client."""
    key: FileKey | None = None
    """Which namespace it is."""
    handle: bytes = b""
    number: int | None = None
    """By which that can be entered again."""
    name: str = ""
    """What the interface was to be called there."""
    namespace: Namespace | None = None
    index: int = 0
    policies: Policies = field(default_factory=dict)
    tables: Mapping[Selector, int] = field(default_factory=dict)

    def entered(self, spaces: Namespaces) -> AbstractContextManager[Namespace | None]:
        """The namespace, for the moment if it is not held; None if it is out of reach."""
        return spaces.in_reach(self.namespace, self.handle, self.key, self.number)


def _uninstall(spaces: Namespaces, installed: _Installed) -> None:
    """Remove them all. A namespace that cannot be entered keeps rules, which have no effect without their link."""
    try:
        if installed.policies:
            with installed.entered(spaces) as namespace:
                if namespace is not None:
                    install(namespace, PolicyLink(installed.index, installed.name, installed.order), {})
    finally:
        _forget(spaces, installed)


def _forget(spaces: Namespaces, installed: _Installed) -> None:
    _give(spaces, installed)
    installed.index, installed.policies, installed.tables = 0, {}, {}


def _give(spaces: Namespaces, installed: _Installed) -> None:
    if installed.namespace is not None:
        spaces.give(installed.namespace)
        installed.namespace = None


def _protect_node(spaces: Namespaces, namespace: Namespace, policies: Policies) -> None:
    """Rules apply before all routes: in the node's own namespace they must only match packets of the wire."""
    if os.path.sameopenfile(namespace.descriptor, spaces.own.descriptor):
        for selector in policies:
            if selector.source is None or not selector.source.prefixlen:
                raise Refused(f"the policy {selector} is for packets of the node itself; it has to name a source")


def _ip_context(connection: Connection) -> IpContext:
    context = connection.context
    return context.ip_context if context is not None and context.ip_context is not None else IpContext()


def _in_order(policies: Policies) -> list[tuple[object, Routes]]:
    return list(policies.items())
