"""What a mesh consists of: nodes, links between them, uplinks, network services, endpoints, clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from nsm.chains.model.vlans import VlanService

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

PAYLOADS = ("IP", "ETHERNET")
DEFAULT_PAYLOAD, DEFAULT_PREFIXES, DEFAULT_MTU = "IP", ("169.254.0.0/16",), 1500


@dataclass(frozen=True)
class Node:
    """A machine: a network namespace with a manager and a forwarder; labels and variables beside the mesh's own."""

    name: str
    forwarder_labels: Mapping[str, str] = field(default_factory=dict)
    forwarder_environment: Mapping[str, str] = field(default_factory=dict)
    manager_environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A segment that joins nodes: a bridge of its own.

    A node's address is the network's plus its place from 1; in a /31 or /127, which has two addresses and both are
    hosts' (RFC 3021, RFC 6164), from 0.
    """

    nodes: tuple[str, ...]
    network: Network
    mtu: int = DEFAULT_MTU

    @property
    def name(self) -> str:
        """What tells it from other links and from uplinks."""
        return str(self.network)

    @property
    def is_point_to_point(self) -> bool:
        """Whether the network is a /31 or /127."""
        return self.network.prefixlen == self.network.max_prefixlen - 1

    @property
    def room(self) -> int:
        """How many nodes can have an address: the first is no host's, of IPv4 nor is the last, but in a /31 or /127."""
        if self.is_point_to_point:
            return 2
        return max(0, self.network.num_addresses - (2 if self.network.version == 4 else 1))

    def interface_of(self, node: str) -> Interface:
        """The address that a node has at this link, with the length of its prefix."""
        address = self.network.network_address + self.nodes.index(node) + (not self.is_point_to_point)
        return ipaddress.ip_interface((address, self.network.prefixlen))


@dataclass(frozen=True)
class Uplink:
    """A network beside the mesh, a bridge of its own: each of its nodes has an interface there, called as it is.

    Nodes have no addresses there. Clients whose endpoint names it by the label `via` are put on it.
    """

    name: str
    nodes: tuple[str, ...]
    mtu: int = DEFAULT_MTU


@dataclass(frozen=True)
class Route:
    """Endpoints that a match leads to, and their share."""

    destination_selector: Mapping[str, str]
    weight: int = 0


@dataclass(frozen=True)
class Match:
    """Which clients of a service go where. `labels` are those of its metadata, which choose the forwarder."""

    source_selector: Mapping[str, str]
    routes: tuple[Route, ...]
    fallthrough: bool = False
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ServiceSpec:
    """A network service that the mesh's operator registers."""

    name: str
    payload: str = DEFAULT_PAYLOAD
    matches: tuple[Match, ...] = ()


@dataclass(frozen=True)
class EndpointSpec:
    """What provides services: the icmp-responder, a `command` of one's own, or a process that gives out `vlans`.

    The last one needs no dataplane, so it is no workload with namespaces of its own: it runs in those of its node.
    """

    name: str
    node: str
    services: tuple[str, ...]
    payload: str | None = None
    prefixes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    vlans: tuple[VlanService, ...] = ()
    """Where each of the services is."""


@dataclass(frozen=True)
class ClientSpec:
    """A workload that asks for wires."""

    name: str
    node: str
    wires: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topology:
    """A whole mesh. `source` and `text` are the file that it was read from; its commands run in `folder`."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    clients: tuple[ClientSpec, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
    source: str = field(default="", compare=False)
    text: str = field(default="", compare=False, repr=False)
    folder: str = field(default="/", compare=False)

    @property
    def workloads(self) -> tuple[EndpointSpec | ClientSpec, ...]:
        """Endpoints and clients, as far as they have namespaces of their own."""
        return (*(endpoint for endpoint in self.endpoints if not endpoint.vlans), *self.clients)

    def address_of(self, node: str) -> str:
        """Where the other nodes reach a node: its address at its first link; empty if it has none."""
        return next((str(link.interface_of(node).ip) for link in self.links if node in link.nodes), "")
