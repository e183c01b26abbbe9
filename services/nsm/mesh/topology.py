"""The file that describes a mesh, read with the line of every fault."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nsm.chains.model.nsurl import parse_nsurl

T = TypeVar("T")

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
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


class TopologyError(Exception):
    """The file does not describe a mesh; the text has a line for each fault."""


@dataclass(frozen=True)
class Node:
    """A machine: a network namespace with a manager and a forwarder."""

    name: str


@dataclass(frozen=True)
class EndpointSpec:
    """A workload that provides services."""

    name: str
    node: str
    services: tuple[str, ...]
    payload: str = "IP"
    prefixes: tuple[str, ...] = ("169.254.0.0/16",)
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of its process beside those that the mesh sets."""


@dataclass(frozen=True)
class ClientSpec:
    """A workload that asks for wires."""

    name: str
    node: str
    wires: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topology:
    """A whole mesh."""

    nodes: tuple[Node, ...]
    endpoints: tuple[EndpointSpec, ...]
    clients: tuple[ClientSpec, ...]

    @property
    def workloads(self) -> tuple[EndpointSpec | ClientSpec, ...]:
        """Endpoints and clients: what has namespaces of its own."""
        return (*self.endpoints, *self.clients)


def read(path: str | None) -> Topology:
    """The mesh that the file at `path` describes; without one, the built-in mesh. Raises `TopologyError`."""
    if path is None:
        return parse(DEFAULT, "the built-in topology")
    try:
        return parse(Path(path).read_text(), path)
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror}") from None


def parse(text: str, source: str) -> Topology:
    """The mesh that `text` describes; `source` names it in errors."""
    reader = _Reader(source)
    try:
        root = yaml.compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TopologyError(f"{source}:{line}: {error.problem}") from None
    fields = reader.fields(root, {"nodes", "endpoints", "clients"}, "the file")
    nodes = tuple(reader.each(fields.get("nodes"), reader.node))
    endpoints = tuple(reader.each(fields.get("endpoints"), reader.endpoint))
    clients = tuple(reader.each(fields.get("clients"), reader.client))
    reader.check_nodes({node.name for node in nodes})
    if len(nodes) != 1:
        reader.fault(root, f"there are {len(nodes)} nodes; wires between nodes are not supported yet, describe one")
    if reader.faults:
        raise TopologyError("\n".join(reader.faults))
    return Topology(nodes, endpoints, clients)


class _Reader:
    """Walks the YAML nodes, which know their lines, and collects faults."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._names: dict[str, int] = {}
        self._placed: list[tuple[str, Any]] = []
        self.faults: list[str] = []

    def fault(self, node: Any, text: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.faults.append(f"{self._source}:{line}: {text}")

    def fields(self, node: Any, allowed: set[str], what: str) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what} must be a mapping with the keys {', '.join(sorted(allowed))}")
            return {}
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.value not in allowed:
                self.fault(key, f"unknown key {key.value!r} in {what}; there are {', '.join(sorted(allowed))}")
            elif key.value in found:
                self.fault(key, f"the key {key.value!r} is given twice in {what}")
            else:
                found[key.value] = value
        return found

    def each(self, node: Any, read: Callable[[Any], T]) -> Iterator[T]:
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, "expected a list")
            return
        for item in node.value:
            yield read(item)

    def node(self, node: Any) -> Node:
        fields = self.fields(node, {"name"}, "a node")
        return Node(self._name(node, fields))

    def endpoint(self, node: Any) -> EndpointSpec:
        allowed = {"name", "node", "services", "payload", "prefixes", "labels", "environment"}
        fields = self.fields(node, allowed, "an endpoint")
        payload = self._text(fields.get("payload")) or "IP"
        if payload not in {"IP", "ETHERNET"}:
            self.fault(fields["payload"], f"payload {payload!r} is neither IP nor ETHERNET")
        return EndpointSpec(
            self._name(node, fields),
            self._node(node, fields),
            self._some(node, fields, "services"),
            payload,
            tuple(self._prefix(item) for item in self._items(fields.get("prefixes"))) or ("169.254.0.0/16",),
            self._labels(fields.get("labels")),
            self._labels(fields.get("environment")),
        )

    def client(self, node: Any) -> ClientSpec:
        fields = self.fields(node, {"name", "node", "wires", "labels"}, "a client")
        for item in self._items(fields.get("wires")):
            try:
                parse_nsurl(item.value)
            except ValueError as error:
                self.fault(item, str(error))
        wires = self._some(node, fields, "wires")
        return ClientSpec(self._name(node, fields), self._node(node, fields), wires, self._labels(fields.get("labels")))

    def check_nodes(self, known: set[str]) -> None:
        for name, node in self._placed:
            if name not in known:
                self.fault(node, f"there is no node {name!r}; there are {', '.join(sorted(known)) or 'none'}")

    def _name(self, node: Any, fields: dict[str, Any]) -> str:
        name = self._text(fields.get("name"))
        if not _NAME.fullmatch(name):
            self.fault(fields.get("name") or node, f"name {name!r}: expected up to 30 of a-z, 0-9 and -")
        elif name in self._names:
            self.fault(fields["name"], f"the name {name!r} is given twice, first in line {self._names[name]}")
        else:
            self._names[name] = node.start_mark.line + 1
        return name

    def _node(self, node: Any, fields: dict[str, Any]) -> str:
        name = self._text(fields.get("node"))
        self._placed.append((name, fields.get("node") or node))
        return name

    def _some(self, node: Any, fields: dict[str, Any], key: str) -> tuple[str, ...]:
        items = tuple(item.value for item in self._items(fields.get(key)))
        if not items:
            self.fault(node, f"the key {key!r} is missing or empty")
        return items

    def _items(self, node: Any) -> list[Any]:
        return [item for item in self.each(node, lambda item: item) if isinstance(item, yaml.ScalarNode)]

    def _prefix(self, node: Any) -> str:
        text: str = node.value
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            self.fault(node, f"{text!r} is no prefix; expected one such as 10.0.0.0/24")
        return text

    def _labels(self, node: Any) -> dict[str, str]:
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, "labels must be a mapping")
            return {}
        return {key.value: self._text(value) for key, value in node.value}

    def _text(self, node: Any) -> str:
        if node is None:
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, "expected a text")
            return ""
        text: str = node.value
        return text
