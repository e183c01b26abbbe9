"""One end of a wire to another node, which carries frames."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from nsm.chains.core import Conflict
from nsm.chains.forwarding.dataplane import VniTaken
from nsm.chains.forwarding.sides import Vxlan
from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import Link, LinkEnd, Namespace, NetlinkError, add_vxlan_peer, create_vxlan

from .device import Device, mac_of


class VxlanDevice(Device):
    """A VXLAN device in the workload's namespace; its underlay is the node's."""

    def __init__(self, tunnel: Vxlan) -> None:
        self._tunnel = tunnel

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """Make the device."""
        vxlan = self._tunnel
        peer = vxlan.remote if vxlan.remote_port == vxlan.port else None
        own.socket.apply([create_vxlan(ends[0], vxlan.vni, vxlan.local, vxlan.port, peer, mtu=wire.mtu)])

    def mac(self, alias: str, side: int) -> str:
        """Derived from the tunnel: the other end's device may outlive the connection's name here."""
        return mac_of("vxlan", str(self._tunnel.vni), str(self._tunnel.local), str(self._tunnel.remote))

    def prepare(self, target: Namespace, wire: Wire, index: int) -> None:
        """If the peer's port differs from ours, it is an entry of the device's own table."""
        if self._tunnel.port != self._tunnel.remote_port:
            target.socket.apply([add_vxlan_peer(index, self._tunnel.remote, self._tunnel.remote_port)])

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether number, addresses and port are the same."""
        return there[0].kind == "vxlan" and self._is_same(there[0])

    def _is_same(self, there: Link) -> bool:
        vxlan = self._tunnel
        family = "" if vxlan.local.version == 4 else "6"
        names = ("ID", f"LOCAL{family}", f"GROUP{family}", "PORT")
        found = [str(there.details.get(f"IFLA_VXLAN_{name}")) for name in names]
        wanted = [vxlan.vni, vxlan.local, vxlan.remote, vxlan.port]
        return found == [str(value) for value in wanted] and vxlan.remote_port == vxlan.port

    def explain_refusal(self, error: NetlinkError) -> None:
        """The kernel accepts a number only once for a UDP port, across all namespaces."""
        if error.errno == errno.EEXIST:
            vni, port = self._tunnel.vni, self._tunnel.port
            raise VniTaken(f"VNI {vni} is taken on this node by another VXLAN device on UDP port {port}") from error

    def explain_down(self, error: NetlinkError) -> None:
        """The port is bound when the device is set up."""
        if error.errno == errno.EADDRINUSE:
            port = f"UDP port {self._tunnel.port} of this node is taken by another process"
            raise Conflict(f"{port}; NSM_VXLAN_PORT names another one for VXLAN") from error
