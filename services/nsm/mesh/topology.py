"""Reads the file that describes a mesh, and reports every fault with its line.

`topology.schema.json` describes the same structure for editors; tests keep the two in sync.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from nsm.apis.mechanisms import KERNEL, MEMIF
from nsm.apis.payloads import ETHERNET
from nsm.chains.config.names import fault_of
from nsm.chains.model.nsurl import NsUrl, check_interfaces, check_mechanisms, parse_strict_nsurl
from nsm.chains.model.vlans import LARGEST_VLAN, VlanService, parse_vlan_services
from nsm.chains.reading.yaml_reader import YamlReader

from .model import (
    CLIENTS,
    DEFAULT_MTU,
    DEFAULT_PAYLOAD,
    FORWARDERS,
    PAYLOADS,
    RUNS,
    VL3,
    ClientSpec,
    Domain,
    EndpointSpec,
    Forwarder,
    Link,
    Match,
    Network,
    Node,
    Route,
    ServiceSpec,
    Topology,
    Uplink,
)
from .topology_check import Checker

DEFAULT = """\
nodes:
  - name: node-1
endpoints:
  - name: endpoint
    node: node-1
    services: [icmp-responder]
    payload: IP
    prefixes: [10.0.0.0/24, "fd00::/120"]
clients:
  - name: client
    node: node-1
    wires: [kernel://icmp-responder/nsm-1]
"""
BUILT_IN = "the built-in topology"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,128}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_INTERFACE = re.compile(r"(?!(lo|eth[0-9]+)$)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN = {"NSM_NAME", "NSM_CONNECT_TO", "NSM_LISTEN_ON", "NSM_REGISTRY_URL", "NODE_NAME", "SPIFFE_ENDPOINT_SOCKET"}
"""Variables that the mesh sets itself."""
_LARGEST_MTU, _LARGEST_WEIGHT = 65535, 2**32 - 1
_SMALLEST_MTU = {4: 68, 6: 1280}
_LONGEST_VL3 = {4: 24, 6: 64}


class TopologyError(Exception):
    """The file does not describe a mesh; the text has a line for each fault."""


def read(path: str | None) -> Topology:
    """The mesh in the file at `path`; without a path, the built-in mesh. Raises `TopologyError`."""
    if path is None:
        return parse(DEFAULT, BUILT_IN)
    try:
        return parse(Path(path).read_text(), path, folder=os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TopologyError(f"{path}: the file is not UTF-8 text") from None


def parse(text: str, source: str, *, folder: str = "/") -> Topology:
    """The mesh in `text`; errors name `source`, and its commands run in `folder`."""
    reader = YamlReader(source)
    file = _File(reader)
    topology = file.topology(reader.root(text), source=source, text=text, folder=folder)
    if reader.faults:
        raise TopologyError("\n".join(reader.faults))
    return topology


def schema() -> str:
    """The JSON schema of the file."""
    return (files("nsm.mesh") / "topology.schema.json").read_text()


class _File:
    """Readers for the parts of the file, each with its allowed keys."""

    def __init__(self, reader: YamlReader) -> None:
        self._reader = reader
        self._check = Checker(reader)

    def topology(self, root: Any, **origin: str) -> Topology:
        keys = {"domains", "nodes", "links", "uplinks", "services", "endpoints", "clients", "vl3"}
        fields = self._reader.mapping(root, keys, "the file") if root is not None else {}
        each = self._reader.each
        topology = Topology(
            tuple(each(fields.get("nodes"), self._node)),
            tuple(link for link in each(fields.get("links"), self._link) if link is not None),
            tuple(each(fields.get("services"), self._service)),
            tuple(each(fields.get("endpoints"), self._endpoint)),
            tuple(each(fields.get("clients"), self._client)),
            tuple(each(fields.get("uplinks"), self._uplink)),
            tuple(each(fields.get("domains"), self._domain)),
            tuple(network for network in each(fields.get("vl3"), self._vl3) if network is not None),
            **origin,
        )
        if root is not None or not self._reader.faults:
            self._check.whole(topology, fields.get("nodes") or root)
        return topology

    def _domain(self, node: Any) -> Domain:
        fields = self._reader.mapping(node, {"name", "nodes", "floating", "admits"}, "a domain")
        name, names = self._reader.text(fields.get("name")), self._some(node, fields, "nodes")
        if not _DOMAIN.fullmatch(name):
            told = f"domain {name!r}: expected a name of DNS such as my.cluster1, of a-z, 0-9, - and ."
            self._reader.fault(fields.get("name") or node, told)
        else:
            self._check.domain(name, fields["name"])
        self._check.in_domain(name, names, fields.get("nodes"))
        admits = dict(self._reader.each(fields["admits"], self._admitted)) if "admits" in fields else None
        return Domain(name, names, self._reader.flag(fields.get("floating")), admits)

    def _admitted(self, node: Any) -> tuple[str, tuple[str, ...]]:
        fields = self._reader.mapping(node, {"domain", "services"}, "an entry of admits")
        domain, services = self._some_text(node, fields, "domain"), self._reader.texts(fields.get("services"))
        self._check.admits(domain, fields.get("domain") or node)
        for name in services:
            if not name or any(mark in name for mark in ",|@="):
                told = f"service {name!r}: expected its name in this domain, without , | @ and ="
                self._reader.fault(fields["services"], told)
        return domain, services

    def _node(self, node: Any) -> Node:
        fields = self._reader.mapping(node, {"name", "forwarder", "manager"}, "a node")
        manager = fields.get("manager")
        manager = self._reader.mapping(manager, {"environment"}, "a manager") if manager else {}
        return Node(
            self._name(node, fields),
            self._forwarders(fields.get("forwarder")),
            self._environment(manager.get("environment"), "nsmgr"),
        )

    def _forwarders(self, node: Any) -> tuple[Forwarder, ...]:
        """One forwarder, or a list of several kinds."""
        if node is None:
            return (Forwarder(),)
        if not isinstance(node, yaml.SequenceNode):
            return (self._forwarder(node),)
        found: dict[str, Forwarder] = {}
        for each in node.value:
            forwarder = self._forwarder(each)
            if forwarder.kind in found:
                self._reader.fault(each, f"a second forwarder of kind {forwarder.kind!r}: a node has one of each kind")
            found[forwarder.kind] = forwarder
        if not found:
            self._reader.fault(node, "a node needs a forwarder; leave the key out for the kernel's")
        return tuple(found.values())

    def _forwarder(self, node: Any) -> Forwarder:
        """What forwards packets: ``vpp`` alone is short for ``{kind: vpp}``."""
        is_short = isinstance(node, yaml.ScalarNode)
        fields = {} if is_short else self._reader.mapping(node, {"kind", "labels", "environment"}, "a forwarder")
        named = node if is_short else fields.get("kind")
        kind = self._reader.text(named) if named is not None else FORWARDERS[0]
        if kind not in FORWARDERS:
            self._reader.fault(named, f"forwarder {kind!r}: expected {' or '.join(FORWARDERS)}")
            kind = FORWARDERS[0]
        environment = self._environment(fields.get("environment"), f"forwarder-{kind}")
        return Forwarder(kind, self._labels(fields.get("labels")), environment)

    def _link(self, node: Any) -> Link | None:
        fields = self._reader.mapping(node, {"nodes", "network", "mtu"}, "a link")
        names = self._some(node, fields, "nodes")
        network = self._network(node, fields.get("network"))
        lowest = _SMALLEST_MTU[network.version if network is not None else 4]
        mtu = self._reader.number(fields.get("mtu"), lowest, _LARGEST_MTU, DEFAULT_MTU, "MTU")
        if network is None:
            return None
        link = Link(names, network, mtu)
        self._check.link(link, fields.get("network"), fields.get("nodes"))
        return link

    def _uplink(self, node: Any) -> Uplink:
        fields = self._reader.mapping(node, {"via", "nodes", "mtu"}, "an uplink")
        via, names = self._reader.text(fields.get("via")), self._some(node, fields, "nodes")
        if not _INTERFACE.fullmatch(via):
            told = f"via {via!r}: expected up to 15 of a-z, 0-9 and -, and neither lo nor eth0, eth1, .."
            self._reader.fault(fields.get("via") or node, told)
        else:
            self._check.uplink(via, fields["via"])
        self._check.at_uplink(via, names, fields.get("nodes"))
        mtu = self._reader.number(fields.get("mtu"), _SMALLEST_MTU[4], _LARGEST_MTU, DEFAULT_MTU, "MTU")
        return Uplink(via, names, mtu)

    def _network(self, link: Any, node: Any) -> Network | None:
        if node is None:
            self._reader.fault(link, "the key 'network' is missing; expected one such as 172.16.1.0/24 or fd00:1::/64")
            return None
        text = self._reader.text(node)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            self._reader.fault(node, f"{text!r} is not a network; expected one such as 172.16.1.0/24 or fd00:1::/64")
            return None
        if str(network.network_address) != str(ipaddress.ip_interface(text).ip):
            self._reader.fault(node, f"{text!r} is an address within a network; write {str(network)!r}")
        if network.is_multicast or network.is_loopback or network.is_link_local or network.is_unspecified:
            self._reader.fault(node, f"{text!r} has no usable addresses for nodes")
        return network

    def _service(self, node: Any) -> ServiceSpec:
        fields = self._reader.mapping(node, {"name", "payload", "matches"}, "a service")
        name = self._reader.text(fields.get("name"))
        self._check.service_name(name, fields.get("name") or node)
        payload = self._payload(fields.get("payload")) or DEFAULT_PAYLOAD
        return ServiceSpec(name, payload, tuple(self._reader.each(fields.get("matches"), self._match)))

    def _match(self, node: Any) -> Match:
        keys = {"source_selector", "routes", "fallthrough", "metadata"}
        fields = self._reader.mapping(node, keys, "a match")
        metadata = fields.get("metadata")
        inner = self._reader.mapping(metadata, {"labels"}, "metadata") if metadata else {}
        return Match(
            self._labels(fields.get("source_selector")),
            tuple(self._reader.each(fields.get("routes"), self._route)),
            self._reader.flag(fields.get("fallthrough")),
            self._labels(inner.get("labels")) if metadata else None,
        )

    def _route(self, node: Any) -> Route:
        fields = self._reader.mapping(node, {"destination_selector", "weight"}, "a route")
        weight = self._reader.number(fields.get("weight"), 0, _LARGEST_WEIGHT, 0, "weight")
        return Route(self._labels(fields.get("destination_selector")), weight)

    def _endpoint(self, node: Any) -> EndpointSpec:
        keys = {"name", "node", "services", "vlans", "payload", "prefixes", "labels", "command", "environment"}
        fields = self._reader.mapping(node, {*keys, "runs", "on_demand"}, "an endpoint")
        labels = self._labels(fields.get("labels"))
        command = self._some(node, fields, "command") if "command" in fields else ()
        vlans = self._vlans(fields, labels)
        runs = self._runs(fields)
        services = self._services(node, fields, needed=not command and "vlans" not in fields)
        endpoint = EndpointSpec(
            self._name(node, fields),
            self._place(node, fields),
            tuple(vlan.name for vlan in vlans) or services,
            ETHERNET if vlans else self._payload(fields.get("payload")),
            tuple(self._reader.each(fields.get("prefixes"), self._prefix)),
            labels,
            command,
            self._environment(fields.get("environment"), None if command else "nse-remote-vlan" if vlans else runs),
            vlans,
            runs,
            self._reader.flag(fields.get("on_demand")),
        )
        self._check.payload(endpoint, fields.get("payload") or node)
        return endpoint

    def _vl3(self, node: Any) -> Network | None:
        network = self._network(node, node)
        if network is not None and network.prefixlen > _LONGEST_VL3[network.version]:
            longest = _LONGEST_VL3[network.version]
            self._reader.fault(node, f"{network} is too small: each endpoint gets a /{longest} of it")
        return network

    def _runs(self, fields: dict[str, Any]) -> str:
        """The component that provides the services; only the usual one has prefixes. Stages of chains always run."""
        if "runs" not in fields:
            return RUNS[0]
        runs = self._reader.text(fields["runs"])
        if runs not in RUNS:
            self._reader.fault(fields["runs"], f"runs {runs!r}: expected {', '.join(RUNS)}")
            return RUNS[0]
        others = {RUNS[0]: (), VL3: ("prefixes",)}.get(runs, ("prefixes", "on_demand"))
        for key in ("command", "vlans", *others):
            if key in fields:
                self._reader.fault(fields[key], f"an endpoint that runs {runs} cannot have {key!r}")
        if runs == VL3:
            self._check.vl3(fields["runs"])
        return runs

    def _vlans(self, fields: dict[str, Any], labels: dict[str, str]) -> tuple[VlanService, ...]:
        if "vlans" not in fields:
            return ()
        for key in ("services", "command", "payload"):
            if key in fields:
                self._reader.fault(fields[key], f"an endpoint with 'vlans' cannot have {key!r}")
        vlans = tuple(self._reader.each(fields["vlans"], lambda each: self._vlan(each, labels)))
        names = [vlan.name for vlan in vlans]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._reader.fault(fields["vlans"], f"the service {name!r} is given twice")
        if not vlans:
            self._reader.fault(fields["vlans"], "the key 'vlans' is empty")
        return vlans

    def _vlan(self, node: Any, labels: dict[str, str]) -> VlanService:
        fields = self._reader.mapping(node, {"service", "via", "vlan"}, "a VLAN")
        name, via = self._some_text(node, fields, "service"), self._some_text(node, fields, "via")
        if via:
            self._check.via(via, fields["via"])
        vlan = self._reader.number(fields.get("vlan"), 0, LARGEST_VLAN, 0, "VLAN")
        service = VlanService(name or "-", via or "-", vlan, labels)
        if not _is_expressible(service):
            self._reader.fault(
                node, f"service {name!r}: its name and labels must not contain blanks or any of , ; & {{ }}"
            )
        return service

    def _some_text(self, node: Any, fields: dict[str, Any], key: str) -> str:
        text = self._reader.text(fields.get(key))
        if not text:
            self._reader.fault(fields.get(key) or node, f"the key {key!r} is missing or empty")
        return text

    def _services(self, node: Any, fields: dict[str, Any], *, needed: bool) -> tuple[str, ...]:
        names = self._some(node, fields, "services") if needed or "services" in fields else ()
        for name in names:
            if not name or "," in name:
                self._reader.fault(fields["services"], f"service {name!r}: expected a name without commas")
        return names

    def _client(self, node: Any) -> ClientSpec:
        fields = self._reader.mapping(node, {"name", "node", "wires", "labels", "environment", "runs"}, "a client")
        runs = self._reader.text(fields.get("runs")) or CLIENTS[0]
        if runs not in CLIENTS:
            self._reader.fault(fields["runs"], f"runs {runs!r}: expected {' or '.join(CLIENTS)}")
            runs = CLIENTS[0]
        texts = self._reader.texts(fields.get("wires"))
        place = self._reader.text(fields.get("node"))
        parsed = [self._wire(item, url, place) for item, url in zip(_items(fields.get("wires")), texts, strict=False)]
        try:
            check_interfaces([wire for wire in parsed if wire is not None])
        except ValueError as error:
            self._reader.fault(fields.get("wires"), str(error))
        wires = tuple(item.value for item in _items(fields.get("wires")) if isinstance(item.value, str))
        if not wires:
            self._reader.fault(node, "the key 'wires' is missing or empty")
        labels, environment = self._labels(fields.get("labels")), self._environment(fields.get("environment"), runs)
        return ClientSpec(self._name(node, fields), self._place(node, fields), wires, labels, environment, runs)

    def _wire(self, node: Any, url: str, place: str) -> NsUrl | None:
        if "," in url:
            self._reader.fault(node, f"{url!r} has a comma; write each wire as a separate item")
        try:
            wire = parse_strict_nsurl(url)
            check_mechanisms([wire], (KERNEL, MEMIF))
        except ValueError as error:
            self._reader.fault(node, str(error))
            return None
        self._check.wire(wire.network_service, node, place)
        return wire

    def _name(self, node: Any, fields: dict[str, Any]) -> str:
        name = self._reader.text(fields.get("name"))
        if not _NAME.fullmatch(name):
            self._reader.fault(fields.get("name") or node, f"name {name!r}: expected up to 30 of a-z, 0-9 and -")
        else:
            self._check.name(name, fields["name"])
        return name

    def _place(self, node: Any, fields: dict[str, Any]) -> str:
        name = self._reader.text(fields.get("node"))
        self._check.uses(name, fields.get("node") or node)
        return name

    def _some(self, node: Any, fields: dict[str, Any], key: str) -> tuple[str, ...]:
        items = self._reader.texts(fields.get(key))
        if not items:
            self._reader.fault(fields.get(key) or node, f"the key {key!r} is missing or empty")
        return items

    def _payload(self, node: Any) -> str | None:
        if node is None:
            return None
        payload = self._reader.text(node)
        if payload not in PAYLOADS:
            self._reader.fault(node, f"payload {payload!r} is neither {' nor '.join(PAYLOADS)}")
        return payload

    def _prefix(self, node: Any) -> str:
        text = self._reader.text(node)
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            self._reader.fault(node, f"{text!r} is not a prefix; expected one such as 10.0.0.0/24")
        return text

    def _labels(self, node: Any) -> dict[str, str]:
        return self._reader.pairs(node, "labels", _wrong_label)

    def _environment(self, node: Any, component: str | None) -> dict[str, str]:
        """Variables of a component; None: of a user's program, which may have any."""
        return self._reader.pairs(node, "environment", lambda key, _: _wrong_variable(key, component))


def _items(node: Any) -> Iterable[Any]:
    return node.value if isinstance(getattr(node, "value", None), list) else []


def _is_expressible(service: VlanService) -> bool:
    """Whether the service can be expressed in the variable of its process."""
    try:
        return parse_vlan_services(str(service)) == (service,)
    except ValueError:
        return False


def _wrong_label(key: str, value: str) -> str | None:
    if not key or any(mark in key for mark in ",:") or "," in value:
        return f"label {key!r}: {value!r}: expected no comma, and no colon in the name"
    return None


def _wrong_variable(key: str, component: str | None) -> str | None:
    if not _VARIABLE.fullmatch(key):
        return f"{key!r} is not the name of a variable"
    if key in _OWN:
        return f"{key} is set by the mesh itself"
    return fault_of(key, component) if component is not None else None
