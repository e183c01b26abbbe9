"""The kinds of tunnel that carry a wire to another node, and how they are passed to the element that makes them.

The elements of a mechanism, on the server's side or the client's, put a `Tunnel` into the connection's store once
both ends of it are known; `KernelWire` makes the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import MTU
from nsm.chains.core import Conflict, InvalidRequest, Key
from nsm.chains.model import networks
from nsm.chains.model.addresses import read_address
from nsm.chains.model.bounds import MAX_MTU, MIN_MTU
from nsm.chains.model.ipcontext import context_of
from nsm.chains.model.values import read_number

from .netlink import Address, WireguardSettings

VXLAN_OVERHEAD = {4: 54, 6: 74}
"""Bytes of outer IP, UDP, VXLAN and inner Ethernet with one VLAN tag, by IP version: upstream's numbers."""
WIREGUARD_OVERHEAD = {4: 60, 6: 80}
"""Bytes of outer IP, UDP and a WireGuard data message, by IP version."""
_LARGEST_PORT, _SHOWN = 65535, 32


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device; `port` is ours, `remote_port` the peer's."""

    vni: int
    local: Address
    port: int
    remote: Address
    remote_port: int


@dataclass(frozen=True, slots=True)
class Wireguard:
    """A WireGuard device with its only peer."""

    private_key: bytes = field(repr=False)
    port: int
    peer_key: bytes
    peer: Address
    peer_port: int
    room: int = field(compare=False)
    """The MTU that the underlay leaves; the wire's own may be less."""
    is_client: bool
    """Whether this is the side that is made last, and can wait for the other one."""

    @property
    def settings(self) -> WireguardSettings:
        """The settings of its device, except for the peer's address: a device learns that by itself."""
        return WireguardSettings(self.private_key, self.port, self.peer_key)


@dataclass(frozen=True, slots=True)
class Breakout:
    """An interface on an uplink of the node: the wire's other side is the network behind that."""

    uplink: str
    vlan: int
    """The tag of its frames there (IEEE 802.1Q); 0: none."""

    def __str__(self) -> str:
        return f"{self.uplink}.{self.vlan}" if self.vlan else self.uplink


Tunnel = Vxlan | Wireguard | Breakout

TUNNEL: Key[Tunnel] = Key("tunnel")
"""The tunnel of a connection that has one end on another node."""


class VniTaken(Conflict):
    """The kernel has another device of the same VNI on the same UDP port."""


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface that carries tunnels, in its current state."""

    name: str
    mtu: int
    address: Address | None = field(default=None, compare=False)

    def room(self, overhead: int) -> int:
        """The MTU of a wire over it. Raises `Conflict` if that is too small for any packet."""
        mtu = self.mtu - overhead
        if mtu < MIN_MTU:
            raise Conflict(
                f"the underlay {self.name} ({self.address}) has MTU {self.mtu}; a wire of MTU {MIN_MTU} needs "
                f"{MIN_MTU + overhead} there"
            )
        return mtu


def address_in(mechanism: Mechanism, parameter: str) -> Address:
    """The address in a parameter. Raises `InvalidRequest` that names it."""
    text = mechanism.parameters.get(parameter, "")
    if (address := read_address(text)) is None:
        raise InvalidRequest(f"{parameter} of the {mechanism.type} mechanism is not an IP address: {text[:_SHOWN]!r}")
    return address


def peer_in(mechanism: Mechanism, parameter: str) -> Address:
    """The address in a parameter, valid for another node: not loopback, multicast, link-local or of no host.

    Raises `InvalidRequest` that names the parameter and its fault. The underlay refuses our own addresses.
    """
    address = address_in(mechanism, parameter)
    if (fault := networks.host_fault(address)) is not None:
        raise InvalidRequest(f"{parameter} of the {mechanism.type} mechanism cannot be {address}: it is {fault}")
    return address


def number_in(mechanism: Mechanism, parameter: str, limit: int, *, least: int = 0) -> int:
    """The number in a parameter, 0 if it is not there. Raises `InvalidRequest` if it is not `least` to `limit`."""
    if not (text := mechanism.parameters.get(parameter)):
        return 0
    number, told = read_number(text, limit), f"{parameter} of the {mechanism.type} mechanism is"
    if number is None:
        raise InvalidRequest(f"{told} not a number up to {limit}: {text[:_SHOWN]!r}")
    if number < least:
        raise InvalidRequest(f"{told} {number}; expected {least} to {limit}")
    return number


def port_in(mechanism: Mechanism, parameter: str) -> int:
    """The UDP port in a parameter, 0 if it is not there. Raises `InvalidRequest`."""
    return number_in(mechanism, parameter, _LARGEST_PORT, least=1)


def lower_mtu(connection: Connection, mechanism: Mechanism, mtu: int) -> None:
    """Let neither the mechanism nor the connection promise more than `mtu`. Raises `InvalidRequest` if invalid."""
    context, told = context_of(connection), number_in(mechanism, MTU, MAX_MTU)
    if told and told < MIN_MTU:
        raise InvalidRequest(f"MTU of the {mechanism.type} mechanism is less than {MIN_MTU}")
    least = min(value for value in (told, context.mtu, mtu) if value)
    mechanism.parameters[MTU] = str(min(told or mtu, mtu))
    context.mtu = least
