"""One end of an encrypted wire to another node, which carries packets: the kernel's device, or a process's."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from nsm.chains.core import Conflict
from nsm.chains.forwarding.sides import Wireguard
from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import (
    Link,
    LinkEnd,
    Namespace,
    NetlinkError,
    create_wireguard,
    rename,
    set_mtu,
)
from nsm.chains.netlink.bridges import set_state
from nsm.forwarder_kernel.wireguard_go import Process

from .device import Device


class _Wireguard(Device):
    """The common part of both kinds."""

    def __init__(self, tunnel: Wireguard) -> None:
        self._tunnel = tunnel

    def mac(self, alias: str, side: int) -> str:
        """It carries packets."""
        return ""

    def explain_down(self, error: NetlinkError) -> None:
        """The port is bound when the device is set up."""
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"UDP port {self._tunnel.port} of this node is taken by another process") from error


class KernelWireguard(_Wireguard):
    """The kernel's own WireGuard."""

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Make the device; its socket is in the node's namespace."""
        own.socket.apply([create_wireguard(ends[0], mtu=wire.mtu)])

    def prepare(self, target: Namespace, wire: Wire, index: int) -> None:
        """Give it its key and its peer."""
        tunnel = self._tunnel
        target.wireguard().set(index, tunnel.private_key, tunnel.port, tunnel.peer_key, tunnel.peer, tunnel.peer_port)

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether it has this key and this peer: then its sessions continue."""
        return there[0].kind == "wireguard" and target.wireguard().settings(there[0].index) == self._tunnel.settings

    def last_handshake(self, target: Namespace, index: int) -> int:
        """When the device last completed a handshake with its peer."""
        return target.wireguard().last_handshake(index)


class UserWireguard(_Wireguard):
    """A wireguard-go process, whose interface already exists, under another name."""

    def __init__(self, tunnel: Wireguard, process: Process) -> None:
        super().__init__(tunnel)
        self.process: Process = process

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Configure the process, and give its interface its name."""
        if target.socket.link(name=ends[0].name) is not None:
            raise NetlinkError(f"create {ends[0].name}", target.where, errno.EEXIST)
        self.process.set(self._tunnel)
        down = set_state(ends[0].index, up=False)  # it is up if an earlier forwarder had it under another name
        target.socket.apply([down, rename(ends[0].index, ends[0].name)])

    def prepare(self, target: Namespace, wire: Wire, index: int) -> None:
        """The process was given the underlay's MTU; the wire's own MTU may be less."""
        if wire.mtu:
            target.socket.apply([set_mtu(index, wire.mtu)])

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether it is this process's, and has this key and this peer already."""
        return there[0].index == self.process.index and self.process.settings() == self._tunnel.settings

    def last_handshake(self, target: Namespace, index: int) -> int:
        """When the process last completed a handshake with its peer."""
        return self.process.last_handshake()

    @property
    def index(self) -> int | None:
        """That of the process's interface."""
        return self.process.index
