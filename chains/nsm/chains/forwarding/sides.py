"""The two sides of a wire, as its forwarder sees them: where a workload has its end, or how the wire goes on from here.

A side is a value: two that are equal need no change. Those inside the node follow from the parameters of a mechanism;
those that lead elsewhere are set by the elements of their mechanism, under `CLIENT_SIDE` or `ENDPOINT_SIDE` in the
connection's store. A package with a mechanism of its own adds a subclass of `Side`, and elements that set it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nsm.apis import mechanisms as names
from nsm.apis.connection import Mechanism
from nsm.chains.core import InvalidRequest, Key
from nsm.chains.model import values
from nsm.chains.model.addresses import Address
from nsm.chains.model.interface_name import fault
from nsm.chains.model.wireguard import WireguardSettings

_SHOWN = 64
_BRIDGE, LOWEST_TABLE, _DIGITS = "br-", 1 << 30, 10
"""How the bridge of an interface `in-1a2b3c4d` begins, and routing tables of joined interfaces."""


class Side:
    """What all kinds of sides have in common."""

    __slots__ = ()
    kind: ClassVar[str] = ""
    """The type of the mechanism."""

    @property
    def is_local(self) -> bool:
        """Whether a workload of this node has its end of the wire here."""
        return False

    @property
    def interface(self) -> str:
        """The name of the workload's interface, or of the node's interface where the wire leaves; empty: unknown."""
        return ""


@dataclass(frozen=True, slots=True)
class KernelInterface(Side):
    """KERNEL: an interface in a network namespace."""

    path: str
    """The namespace's file, such as ``/proc/1234/ns/net``: valid until the request ends."""
    name: str
    """At most 15 bytes."""
    token: str = ""
    """The id of the SR-IOV token for which it has to be a virtual function; empty: any interface is fine."""
    is_bare: bool = False
    """Whether it gets no addresses and no routes: its holder passes packets on."""
    joint: str = ""
    """For a bare one: a bridge in the namespace, or the number of a routing table, that it becomes a part of."""
    kind: ClassVar[str] = names.KERNEL

    @property
    def is_local(self) -> bool:
        """It is a workload's."""
        return True

    @property
    def interface(self) -> str:
        """Its name."""
        return self.name


@dataclass(frozen=True, slots=True)
class Memif(Side):
    """MEMIF: shared memory, by a socket. Towards a client this forwarder owns the socket, else the endpoint does."""

    socket: str
    """The abstract name with a leading ``@``, as in the mechanism; it is not trusted."""
    path: str
    """The file of the socket owner's network namespace, like that of a `KernelInterface`; empty: the forwarder's."""
    kind: ClassVar[str] = names.MEMIF

    @property
    def is_local(self) -> bool:
        """It is a workload's."""
        return True


@dataclass(frozen=True, slots=True)
class VirtualFunction(Side):
    """VFIO: a virtual function that a program uses itself, by device nodes."""

    token: str
    """The id of its SR-IOV token; it is not trusted."""
    cgroup: str
    """A pattern for the control groups that may open the nodes, as in the mechanism; it is not trusted."""
    path: str = field(default="", compare=False)
    """The file of the program's network namespace, like that of a `KernelInterface`; empty: unknown."""
    address: str = field(default="", compare=False)
    """The PCI address of the function that it has already, as it says; it is not trusted."""
    kind: ClassVar[str] = names.VFIO

    @property
    def is_local(self) -> bool:
        """It is a workload's."""
        return True


@dataclass(frozen=True, slots=True)
class Nothing(Side):
    """NOOP: the wire does not go on from here; a network outside joins both sides, such as a virtual function's."""

    kind: ClassVar[str] = names.NOOP


@dataclass(frozen=True, slots=True)
class Vxlan(Side):
    """VXLAN: a tunnel for frames to another node; `port` is ours, `remote_port` the peer's (UDP)."""

    vni: int
    local: Address
    port: int
    remote: Address
    remote_port: int
    kind: ClassVar[str] = names.VXLAN


@dataclass(frozen=True, slots=True)
class Wireguard(Side):
    """WIREGUARD: an encrypted tunnel for packets to another node, with its only peer."""

    private_key: bytes = field(repr=False)
    port: int
    peer_key: bytes
    peer: Address
    peer_port: int
    room: int = field(compare=False)
    """The MTU that the underlay leaves; the wire's own may be less."""
    is_client: bool
    """Whether this is the side that is made last, and can wait for the other one."""
    kind: ClassVar[str] = names.WIREGUARD

    @property
    def settings(self) -> WireguardSettings:
        """The settings of its device, except for the peer's address: a device learns that by itself."""
        return WireguardSettings(self.private_key, self.port, self.peer_key)


@dataclass(frozen=True, slots=True)
class Breakout(Side):
    """VLAN: an interface of the node, its uplink; the wire's other side is the network behind that."""

    uplink: str
    vlan: int
    """The tag of its frames there (IEEE 802.1Q); 0: none."""
    kind: ClassVar[str] = names.VLAN

    @property
    def interface(self) -> str:
        """The uplink, and the tag."""
        return f"{self.uplink}.{self.vlan}" if self.vlan else self.uplink

    def __str__(self) -> str:
        return self.interface


CLIENT_SIDE: Key[Side] = Key("side of the client")
"""Set by elements in the server's chain, before the endpoint is requested; valid for a mechanism of its `kind`."""
ENDPOINT_SIDE: Key[Side] = Key("side of the endpoint")
"""Set by elements in the client chain, from the endpoint's answer; valid for a mechanism of its `kind`."""


def local_side(mechanism: Mechanism) -> Side | None:
    """The side that a mechanism inside the node describes; None for other mechanisms.

    Raises `InvalidRequest` that names the invalid parameter.
    """
    parameters = mechanism.parameters
    match mechanism.type:
        case names.KERNEL:
            name = parameters.get(names.INTERFACE_NAME, "")
            path = namespace_in(mechanism)
            if (wrong := fault(name)) is not None:
                raise InvalidRequest(wrong)
            is_bare = parameters.get(names.BARE) == "true"
            joint = joint_of(name, parameters.get(names.JOINT, "")) if is_bare else ""
            return KernelInterface(path, name, parameters.get(names.DEVICE_TOKEN_ID, ""), is_bare, joint)
        case names.MEMIF:
            path = namespace_in(mechanism) if parameters.get(names.INODE_URL) else ""
            return Memif(parameters.get(names.SOCKET_FILE, ""), path)
        case names.VFIO:
            path = namespace_in(mechanism) if parameters.get(names.INODE_URL) else ""
            token, address = parameters.get(names.DEVICE_TOKEN_ID, ""), parameters.get(names.PCI_ADDRESS, "")
            return VirtualFunction(token, parameters.get(names.CGROUP_DIR, ""), path, address)
        case names.NOOP:
            return Nothing()
        case _:
            return None


def joint_of(name: str, joint: str) -> str:
    """What a bare interface becomes a part of: only what is called like it, or a table that nothing else uses.

    Raises `InvalidRequest`: other bridges and tables in the namespace may be the node's.
    """
    if not joint or joint == _BRIDGE + name.rpartition("-")[2]:
        return joint
    if joint.isascii() and joint.isdigit() and len(joint) <= _DIGITS and LOWEST_TABLE <= int(joint) < 2 * LOWEST_TABLE:
        return joint
    raise InvalidRequest(f"{name} cannot become a part of {joint[:_SHOWN]!r}; expected a bridge br-… or a table")


def namespace_in(mechanism: Mechanism) -> str:
    """The path of the network namespace in a mechanism. Raises `InvalidRequest` if there is none."""
    url = mechanism.parameters.get(names.INODE_URL, "")
    if not url.startswith("file://") or not values.URL.fits(url):
        raise InvalidRequest(
            f"{url[:_SHOWN]!r} is not a network namespace; expected one such as file:///proc/1234/ns/net"
        )
    return url.removeprefix("file://")
