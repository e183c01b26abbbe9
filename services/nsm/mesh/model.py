"""The parts of a mesh: nodes, links between them, uplinks, network services, endpoints, clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from nsm.chains.model.vlans import VlanService

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

FORWARDERS = ("kernel", "vpp")
PAYLOADS = ("IP", "ETHERNET")
CLIENTS = ("nsc", "lb-vl3")
"""The components that a client may run."""
CHAINED = ("nse-passthrough", "nse-firewall")
"""Components that are clients of the next endpoint of their service."""
SUPPLIER = "nse-supplier"
VL3 = "nse-vl3"
RUNS = ("nse", *CHAINED, SUPPLIER, VL3)
"""The components that an endpoint may run."""
DEFAULT_PAYLOAD, DEFAULT_PREFIXES, DEFAULT_MTU = "IP", ("169.254.0.0/16",), 1500


@dataclass(frozen=True)
class Forwarder:
    """What forwards a node's packets, one of `FORWARDERS`, with its additional labels and variables."""

    kind: str = FORWARDERS[0]
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """A machine: a network namespace with a manager, and one forwarder or several of different kinds."""

    name: str
    forwarders: tuple[Forwarder, ...] = (Forwarder(),)
    manager_environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A network segment that joins nodes: a bridge.

    A node's address is the network's address plus its position, from 1. In a /31 or /127, where both addresses are
    hosts' (RFC 3021, RFC 6164), positions start at 0.
    """

    nodes: tuple[str, ...]
    network: Network
    mtu: int = DEFAULT_MTU

    @property
    def name(self) -> str:
        """Its unique name among links and uplinks."""
        return str(self.network)

    @property
    def is_point_to_point(self) -> bool:
        """Whether the network is a /31 or /127."""
        return self.network.prefixlen == self.network.max_prefixlen - 1

    @property
    def room(self) -> int:
        """The number of host addresses: without the first, and for IPv4 the last; both count in a /31 or /127."""
        if self.is_point_to_point:
            return 2
        return max(0, self.network.num_addresses - (2 if self.network.version == 4 else 1))

    def interface_of(self, node: str) -> Interface:
        """A node's address at this link, with its prefix length."""
        address = self.network.network_address + self.nodes.index(node) + (not self.is_point_to_point)
        return ipaddress.ip_interface((address, self.network.prefixlen))


@dataclass(frozen=True)
class Uplink:
    """A network outside the mesh, as a bridge: each of its nodes has an interface there, with the uplink's name.

    Nodes have no addresses there. Clients are connected to it if their endpoint's label `via` names it.
    """

    name: str
    nodes: tuple[str, ...]
    mtu: int = DEFAULT_MTU


@dataclass(frozen=True)
class Domain:
    """A part of the mesh with a registry, proxies and an identity authority of its own, on its first node.

    Other domains find it by its name, which is its trust domain too. A `floating` one has only a registry, in which
    endpoints of others are registered. `admits` lists the services that others may use, by domain; None: all of them.
    """

    name: str
    nodes: tuple[str, ...]
    is_floating: bool = False
    admits: Mapping[str, tuple[str, ...]] | None = None

    @property
    def first(self) -> str:
        """The node with the domain's own components."""
        return self.nodes[0]


LOCAL_DOMAIN = "local.mesh"
"""The trust domain of a mesh that has no domains."""


@dataclass(frozen=True)
class Route:
    """A destination of a match: endpoints by labels, and their weight."""

    destination_selector: Mapping[str, str]
    weight: int = 0


@dataclass(frozen=True)
class Match:
    """Routes clients of a service to endpoints. `labels` are those of its metadata, which select the forwarder."""

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
    """A provider of services: the icmp-responder, your own `command`, a router of a vL3, or one that assigns `vlans`.

    The last one needs no dataplane, so it is not a workload: it runs in the namespaces of its node.
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
    """The VLAN of each service."""
    runs: str = "nse"
    """The component that provides the services, unless there is a `command` or there are `vlans`."""
    on_demand: bool = False
    """Whether a supplier starts it, and not the mesh."""

    @property
    def is_vl3(self) -> bool:
        """Whether it routes between its clients and those of the other endpoints of its services."""
        return self.runs == VL3


@dataclass(frozen=True)
class ClientSpec:
    """A workload that requests wires."""

    name: str
    node: str
    wires: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: str = CLIENTS[0]
    """The component that requests them."""


@dataclass(frozen=True)
class Topology:
    """A whole mesh. `source` and `text` are the file that it was read from; its commands run in `folder`."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    clients: tuple[ClientSpec, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
    domains: tuple[Domain, ...] = ()
    vl3: tuple[Network, ...] = ()
    """The networks that endpoints of vL3 services share, of which each has a prefix."""
    source: str = field(default="", compare=False)
    text: str = field(default="", compare=False, repr=False)
    folder: str = field(default="/", compare=False)

    @property
    def workloads(self) -> tuple[EndpointSpec | ClientSpec, ...]:
        """The endpoints and clients that have their own namespaces."""
        return (*(endpoint for endpoint in self.endpoints if not endpoint.vlans), *self.clients)

    def address_of(self, node: str) -> str:
        """The address at which other nodes reach a node: that of its first link; empty without a link."""
        return next((str(link.interface_of(node).ip) for link in self.links if node in link.nodes), "")

    @property
    def all_domains(self) -> tuple[Domain, ...]:
        """The domains; without any in the file, all nodes are one."""
        return self.domains or (Domain(LOCAL_DOMAIN, tuple(node.name for node in self.nodes)),)

    def domain_of(self, node: str) -> Domain:
        """The domain of a node."""
        return next(each for each in self.all_domains if node in each.nodes)

    @property
    def managed(self) -> tuple[Node, ...]:
        """The nodes with a manager and a forwarder: those that are not of a floating domain."""
        bare = {name for each in self.domains if each.is_floating for name in each.nodes}
        return tuple(node for node in self.nodes if node.name not in bare)
