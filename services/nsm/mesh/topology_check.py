"""Consistency checks of a topology: names, addresses, and that every node can reach every other."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nsm.chains.config import items
from nsm.chains.model.domains import AT, join, split
from nsm.chains.reading import nearest
from nsm.chains.reading.yaml_reader import YamlReader, line_of

from .model import CHAINED, DEFAULT_PAYLOAD, FORWARDERS, SUPPLIER, EndpointSpec, Link, Topology
from .routing import reachable


class Checker:
    """Remembers where things are written, and reports inconsistencies to `reader`."""

    def __init__(self, reader: YamlReader) -> None:
        self._reader = reader
        self._names: dict[str, Any] = {}
        self._services: dict[str, Any] = {}
        self._used: list[tuple[str, Any]] = []
        self._links: list[tuple[Link, Any]] = []
        self._payloads: list[tuple[EndpointSpec, Any]] = []
        self._uplinks: dict[str, Any] = {}
        self._vias: list[tuple[str, Any]] = []
        self._wires: list[tuple[str, Any, str]] = []
        self._domains: dict[str, Any] = {}
        self._in_domains: dict[str, tuple[str, Any]] = {}
        self._admits: list[tuple[str, Any]] = []
        self._vl3: list[Any] = []

    def name(self, name: str, node: Any) -> None:
        """A node or a workload is called `name`."""
        self._unique(self._names, f"the name {name!r}", name, node)

    def service_name(self, name: str, node: Any) -> None:
        """A service is called `name`."""
        if not name or "," in name:
            self._reader.fault(node, f"service {name!r}: expected a name without commas")
        else:
            self._unique(self._services, f"the service {name!r}", name, node)

    def uses(self, name: str, node: Any) -> None:
        """Something runs on the node `name`."""
        self._used.append((name, node))

    def payload(self, endpoint: EndpointSpec, node: Any) -> None:
        """An endpoint may name a payload."""
        self._payloads.append((endpoint, node))

    def link(self, link: Link, network: Any, nodes: Any) -> None:
        """A link was described at `network` and `nodes`."""
        for position, name in enumerate(link.nodes):
            item = nodes.value[position]
            self.uses(name, item)
            if name in link.nodes[:position]:
                self._reader.fault(item, f"the link connects {name!r} to itself")
        if len(link.nodes) == 1:
            self._reader.fault(nodes, f"the link connects {link.nodes[0]!r} to no other node")
        if (wanted := len(link.nodes)) > link.room:
            self._reader.fault(network, f"{link.network} is too small: it has {link.room} addresses for {wanted} nodes")
            return
        self._overlap(link, network)
        self._links.append((link, network))

    def uplink(self, via: str, node: Any) -> None:
        """An uplink is called `via`."""
        self._unique(self._uplinks, f"the uplink {via!r}", via, node)

    def at_uplink(self, via: str, names: tuple[str, ...], nodes: Any) -> None:
        """The uplink `via` was described for these nodes."""
        for position, name in enumerate(names):
            self.uses(name, nodes.value[position])
            if name in names[:position]:
                self._reader.fault(nodes.value[position], f"the uplink {via!r} names {name!r} twice")

    def via(self, via: str, node: Any) -> None:
        """An endpoint names an uplink."""
        self._vias.append((via, node))

    def vl3(self, node: Any) -> None:
        """An endpoint is one of a vL3."""
        self._vl3.append(node)

    def wire(self, service: str, node: Any, place: str) -> None:
        """A client on the node `place` requests a service."""
        self._wires.append((service, node, place))

    def domain(self, name: str, node: Any) -> None:
        """A domain is called `name`."""
        self._unique(self._domains, f"the domain {name!r}", name, node)

    def in_domain(self, domain: str, names: tuple[str, ...], nodes: Any) -> None:
        """These nodes are of `domain`."""
        for position, name in enumerate(names):
            item = nodes.value[position]
            self.uses(name, item)
            if name in self._in_domains:
                self._reader.fault(item, f"node {name!r} is of domain {self._in_domains[name][0]!r} already")
            self._in_domains.setdefault(name, (domain, item))

    def admits(self, domain: str, node: Any) -> None:
        """A domain admits another one."""
        self._admits.append((domain, node))

    def whole(self, topology: Topology, node: Any) -> None:
        """Check the whole topology; `node` is the list of nodes."""
        known = [each.name for each in topology.nodes]
        if not known:
            self._reader.fault(node, "there are no nodes; describe at least one")
        for name, place in self._used:
            if name not in known:
                self._reader.fault(place, f"there is no node {name!r}; there are {', '.join(known) or 'none'}")
        for via, place in self._vias:
            if via not in self._uplinks:
                there = ", ".join(self._uplinks) or "none"
                self._reader.fault(place, f"there is no uplink {via!r}; there are {there}")
        self._check_domains(topology, known)
        if not topology.vl3:
            for place in self._vl3:
                self._reader.fault(place, "the key 'vl3' of the file is missing: the networks that endpoints share")
        self._check_wires(topology)
        self._check_payloads(topology)
        self._check_chains(topology)
        self._check_names_of_workloads(topology)
        if known and not self._reader.faults:
            self._check_reach(topology, known)

    def _unique(self, seen: dict[str, Any], what: str, name: str, node: Any) -> None:
        if name in seen:
            self._reader.fault(node, f"{what} is given twice, first in line {line_of(seen[name])}")
        else:
            seen[name] = node

    def _overlap(self, link: Link, node: Any) -> None:
        for other, place in self._links:
            if other.network.version != link.network.version:
                text = f"{other.network} (line {line_of(place)}) are of different families; all links need the same one"
                self._reader.fault(node, f"{link.network} and {text}")
            elif other.network.overlaps(link.network):
                text = f"overlaps with {other.network} (line {line_of(place)}){_same(link, other)}"
                self._reader.fault(node, f"{link.network} {text}")

    def _check_domains(self, topology: Topology, known: list[str]) -> None:
        """Check that every node is of a domain, if there are any, and that floating ones have no workloads."""
        for domain, place in self._admits:
            if domain not in self._domains:
                self._reader.fault(place, f"there is no domain {domain!r}; there are {', '.join(self._domains)}")
        if not topology.domains:
            return
        for name in known:
            if name not in self._in_domains:
                self._reader.fault(self._names[name], f"node {name!r} is of no domain; name it under 'domains'")
        if len(topology.domains) > 1 and not topology.links:
            self._reader.fault(self._domains[topology.domains[0].name], "domains need links between their nodes")
        managed = {node.name for node in topology.managed}
        places = [(each.name, each.node) for each in topology.endpoints]
        for workload, node in [*places, *((each.name, each.node) for each in topology.clients)]:
            if node in known and node not in managed:
                told = f"{workload!r} cannot be on node {node!r}: its domain is floating, and has a registry only"
                self._reader.fault(self._names.get(workload), told)

    def _check_wires(self, topology: Topology) -> None:
        """Check that the file's endpoints provide all services that its clients request, each in its domain."""
        provided: set[str] = set()
        for endpoint in topology.endpoints:
            if (services := _provided_by(endpoint)) is None:
                return
            domain = _domain_of(topology, endpoint.node)
            provided.update(service if AT in service else join(service, domain) for service in services)
        for service, node, place in self._wires:
            own = _domain_of(topology, place)
            if (service if AT in service else join(service, own)) not in provided:
                names = {split(each)[0] if split(each)[1] == own else each for each in provided}
                near = nearest(service, names)
                there = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(names)) or 'none'}"
                self._reader.fault(node, f"no endpoint of this file provides the service {service!r}; {there}")

    def _check_payloads(self, topology: Topology) -> None:
        payloads = {service.name: service.payload for service in topology.services}
        for endpoint, node in self._payloads:
            for service in endpoint.services:
                own = endpoint.payload or payloads.get(service, DEFAULT_PAYLOAD)
                if own != payloads.get(service, own):
                    text = f"payload {own}, but the service {service!r} has payload {payloads[service]}"
                    self._reader.fault(node, text)

    def _check_chains(self, topology: Topology) -> None:
        """Check that services have an order of their stages, and suppliers something to start."""
        ordered = {service.name for service in topology.services if service.matches}
        waiting = {name for each in topology.endpoints if each.on_demand for name in each.services}
        for endpoint, node in self._payloads:
            for service in endpoint.services:
                if endpoint.runs in (*CHAINED, SUPPLIER) and service not in ordered:
                    text = (
                        f"{endpoint.runs} needs the matches of the service {service!r}, which select the next endpoint"
                    )
                    self._reader.fault(node, f"{text}; describe it under 'services'")
            if endpoint.runs == SUPPLIER and not waiting & set(endpoint.services):
                self._reader.fault(node, "no endpoint of its services has 'on_demand': there is nothing to start")

    def _check_names_of_workloads(self, topology: Topology) -> None:
        """Check workloads' names, which form their identities: none may be that of a trusted component."""
        names = [each.name for each in topology.endpoints] + [each.name for each in topology.clients]
        for name in names:
            role = next((role for role in _ROLES if _is_role(name, role, topology)), None)
            if role is not None:
                text = f"the name {name!r} is reserved for the mesh's {role}; choose another name"
                self._reader.fault(self._names[name], text)

    def _check_reach(self, topology: Topology, known: list[str]) -> None:
        reached = reachable(topology.links, known[0])
        for name in known:
            if name not in reached:
                has = any(name in link.nodes for link in topology.links)
                why = f"no chain of links connects it to {known[0]!r}" if has else "it has no link"
                self._reader.fault(self._names[name], f"the other nodes cannot reach {name!r}: {why}")


def _domain_of(topology: Topology, node: str) -> str:
    """The name of a node's domain; empty if the file has none, or not this node."""
    return next((domain.name for domain in topology.domains if node in domain.nodes), "")


def _provided_by(endpoint: EndpointSpec) -> Collection[str] | None:
    """The services of an endpoint; None if a user's program decides at run time."""
    if (told := endpoint.environment.get("NSM_SERVICE_NAMES")) is not None:
        return items(told)
    return endpoint.services if endpoint.services or not endpoint.command else None


_ROLES = (
    *("nsmgr", "forwarder", *(f"forwarder-{kind}" for kind in FORWARDERS), "registry", "identity", "ipam", "operator"),
    *("nsmgr-proxy", "registry-proxy", "dns-server", "view"),
)
"""The roles of the mesh's own components; a component's name is its role with `-NODE` appended."""


def _is_role(name: str, role: str, topology: Topology) -> bool:
    return name in {role, *(f"{role}-{node.name}" for node in topology.nodes)}


def _same(link: Link, other: Link) -> str:
    """Which two nodes would have the same address."""
    taken = {str(other.interface_of(name).ip): name for name in other.nodes}
    for name in link.nodes:
        address = str(link.interface_of(name).ip)
        if address in taken and taken[address] != name:
            return f": {taken[address]!r} and {name!r} would both be {address}"
    return ""
