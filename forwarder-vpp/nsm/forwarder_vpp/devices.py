"""What a wire through VPP is made of, for the kernel's part: links from workloads to the node's own namespace."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence

from nsm.chains.forwarding.wires import Wire
from nsm.chains.netlink import Link, LinkEnd, Namespace, create_veth, delete_link, sysctls
from nsm.chains.netlink.encoding import (
    IFF_UP,
    IFLA_IFNAME,
    IFLA_MTU,
    SETLINK,
    Message,
    attribute,
    link_part,
    number,
    request,
    text,
)
from nsm.chains.netlink.offload import finish_checksums
from nsm.forwarder_kernel.devices import Device
from nsm.forwarder_kernel.devices.device import mac_of

from .api.stats import Counters
from .ports import HostPort, MemifPort, Port, TapPort
from .session import Session

HOST_MTU = 9216
"""That of the node's ends: whatever a wire's own may become."""
_IFF_NOARP, _IFLA_ALIAS, _IFLA_ADDRESS, _IFLA_NET_NS_FD, _IFLA_NEW_INDEX = 0x80, 20, 1, 28, 49
_FIRST_INDEX, _INDEXES = 1 << 20, 1 << 29


class ThroughVPP(Device):
    """A wire through VPP, whose interfaces are `ports`: the client's and the endpoint's.

    VPP's interface towards one workload has the hardware address of the other one's: so neighbors are as those of a
    pair that joins both directly, and a workload without another one here finds its own address.
    """

    tells_carrier = True
    ends_together = False

    def __init__(self, alias: str, ports: Sequence[Port], session: Session, *, arp: bool) -> None:
        self.ports = tuple(ports)
        self.lock = asyncio.Lock()
        self._alias, self._session, self._arp = alias, session, arp
        self._hosts = [port for port in self.ports if isinstance(port, HostPort | TapPort)]
        self._own: Namespace | None = None

    def take(self, own: Namespace) -> None:
        """Know the node's namespace."""
        self._own = own

    def give(self, own: Namespace) -> None:
        """Release what the ports keep open."""
        self.close()

    def close(self) -> None:
        """Release what the ports keep open; a second call does nothing."""
        for port in self.ports:
            port.close()

    @property
    def in_node(self) -> Sequence[int]:
        """The node's ends of pairs; taps are VPP's."""
        ports = [port for port in self._hosts if isinstance(port, HostPort) and port.link]
        return [port.link for port in ports] if len(ports) == len(self._hosts) else ()

    @property
    def is_direct(self) -> bool:
        """Whether both workloads have memifs, so that no packet has to pass VPP."""
        return all(isinstance(port, MemifPort) for port in self.ports)

    def make(self, own: Namespace, target: Namespace, wire: Wire, ends: Sequence[LinkEnd]) -> None:
        """A pair for each end, or VPP's tap, which is moved."""
        done: list[LinkEnd] = []
        try:
            for end, port in zip(ends, self._hosts, strict=True):
                done.append(end)
                self._make(own, wire, end, port)
        except BaseException:
            for port in self._hosts[: len(done)]:
                _remove_host(own, port.host)
            raise

    def _make(self, own: Namespace, wire: Wire, end: LinkEnd, port: Port) -> None:
        if isinstance(port, TapPort):
            own.socket.apply([_move(own, end, port.host, wire.mtu, arp=self._arp)])
        elif isinstance(port, HostPort):
            _remove_host(own, port.host)
            port.link = _FIRST_INDEX + secrets.randbelow(_INDEXES)
            host = LinkEnd(port.host, port.link, mac_of(port.host), own.descriptor)
            own.socket.apply([create_veth(end, host, mtu=wire.mtu, arp=self._arp)])
            with contextlib.suppress(OSError):  # without IPv6; or the node's kernel would see the workload's multicast
                sysctls.write(f"net/ipv6/conf/{port.host}/disable_ipv6", "1", anyway=True)
            own.socket.apply([_set_up_host(port.link, self._alias, max(wire.mtu, HOST_MTU))])
            if not port.has_offload:
                finish_checksums(end.namespace, end.name)

    def is_as_wanted(self, target: Namespace, there: Sequence[Link]) -> bool:
        """Whether the node's ends are there, too."""
        assert self._own is not None
        for link, port in zip(there, self._hosts, strict=True):
            if isinstance(port, HostPort):
                host = self._own.socket.link(name=port.host)
                if host is None or link.kind != "veth" or link.lower != host.index:
                    return False
                port.link = host.index
            elif link.kind != "tun" or port.index is None:
                return False
        return True

    def metrics(self) -> Mapping[str, str]:
        """What the path segment says of the wire, by upstream's names; `server` is the client's side."""
        found: dict[str, str] = {}
        for side, counters in zip(("server", "client"), self.counters(), strict=True):
            if counters is not None:
                values = {
                    name: getattr(counters, name) for name in ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")
                }
                values["drops"] = counters.drops
                found |= {f"{side}_{name}": str(value) for name, value in values.items()}
        return found

    def counters(self) -> list[Counters | None]:
        """What passed VPP's interfaces: the client's and the endpoint's."""
        indexes = [port.index for port in self.ports]
        known = self._session.counters([each for each in indexes if each is not None])
        return [known.get(each) if each is not None else None for each in indexes] or [None, None]


def mac_towards(alias: str, number: int, ends: int) -> str:
    """The hardware address of VPP's interface towards end `number` of `ends`: the opposite end's."""
    return mac_of(alias, str(ends - 1 - number))


def _set_up_host(index: int, alias: str, mtu: int) -> Message:
    """Nothing of the node's own reads it: no ARP, and an address that no frame is for."""
    body = link_part(index, IFF_UP | _IFF_NOARP) + text(_IFLA_ALIAS, f"vpp {alias}"[:255]) + number(IFLA_MTU, mtu)
    return request(SETLINK, 0, body, "set up the node's end of a wire")


def _move(own: Namespace, end: LinkEnd, host: str, mtu: int, *, arp: bool) -> Message:
    """Put a tap into a workload's namespace, as the wanted link."""
    link = own.socket.link(name=host)
    flags = 0 if arp else _IFF_NOARP
    body = link_part(link.index if link is not None else 0, flags) + text(IFLA_IFNAME, end.name)
    body += number(_IFLA_NET_NS_FD, end.namespace) + number(_IFLA_NEW_INDEX, end.index)
    body += attribute(_IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", "")))
    return request(SETLINK, 0, body + (number(IFLA_MTU, mtu) if mtu else b""), f"move {host} to be {end.name}")


def _remove_host(own: Namespace, host: str) -> None:
    """One that is left belongs to a wire that is no more: its other end is somewhere else."""
    if (link := own.socket.link(name=host)) is not None and link.alias.startswith("vpp "):
        own.socket.apply([delete_link(link.index)])
