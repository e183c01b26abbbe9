"""What a topology means in processes: every component with its place, its identity and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .rundir import RunDir
from .topology import ClientSpec, EndpointSpec, Node, Topology

TRUST_DOMAIN = "local.mesh"
OPERATOR = "operator"
"""The identity of the supervisor, when it asks or tells the components something."""
_REGISTRY_PORT, _MANAGER_PORT = 5002, 5001

START_ORDER = (("identity",), ("registry", "nsmgr"), ("forwarder-kernel", "nse"), ("nsc",))
"""The commands that start together, one group after the other."""
STOP_ORDER = ("nsc", "nse", "forwarder-kernel", "nsmgr", "registry", "identity")
"""Clients first, so that they close their wires while everybody else is there."""


@dataclass(frozen=True)
class Component:
    """A process to run: the `nsm` command, the namespaces (by the name of a node or a workload), the environment."""

    name: str
    command: str
    place: str
    environment: Mapping[str, str] = field(repr=False)
    is_workload: bool = False


def manager_of(run: RunDir, node: Node) -> str:
    """The URL at which the workloads of a node reach its manager."""
    return f"unix://{run.socket_of(_role('nsmgr', node.name))}"


def plan(run: RunDir, topology: Topology, common: Mapping[str, str]) -> list[Component]:
    """The components of a mesh; `common` is part of everybody's environment."""
    parts: list[Component] = []
    for node in topology.nodes:
        parts += _of_node(run, node)
    by_name = {node.name: node for node in topology.nodes}
    parts += [_endpoint(run, by_name[endpoint.node], endpoint) for endpoint in topology.endpoints]
    parts += [_client(run, by_name[client.node], client) for client in topology.clients]
    nodes = {part.name: _node_of(part, topology) for part in parts}
    first = topology.nodes[0].name
    entries = [_entry(run, OPERATOR, OPERATOR), *(_entry(run, p.name, _path(p, nodes[p.name])) for p in parts)]
    environment = {"NSM_TRUST_DOMAIN": TRUST_DOMAIN, "NSM_ENTRIES": ",".join(entries)}
    parts.insert(0, Component("identity", "identity", first, environment))
    nodes["identity"] = first
    return [_with_common(run, part, nodes[part.name], common) for part in parts]


def _of_node(run: RunDir, node: Node) -> list[Component]:
    registry, manager, forwarder = (_role(role, node.name) for role in ("registry", "nsmgr", "forwarder"))
    url = f"tcp://127.0.0.1:{_REGISTRY_PORT}"
    listen_on = f"{manager_of(run, node)},tcp://127.0.0.1:{_MANAGER_PORT}"
    own = f"unix://{run.socket_of(forwarder)}"
    return [
        Component(registry, "registry", node.name, {"NSM_LISTEN_ON": url}),
        Component(manager, "nsmgr", node.name, {"NSM_LISTEN_ON": listen_on, "NSM_REGISTRY_URL": url}),
        Component(
            forwarder, "forwarder-kernel", node.name, {"NSM_CONNECT_TO": manager_of(run, node), "NSM_LISTEN_ON": own}
        ),
    ]


def _endpoint(run: RunDir, node: Node, endpoint: EndpointSpec) -> Component:
    environment = {
        "NSM_CONNECT_TO": manager_of(run, node),
        "NSM_SERVICE_NAMES": ",".join(endpoint.services),
        "NSM_PAYLOAD": endpoint.payload,
        "NSM_CIDR_PREFIX": ",".join(endpoint.prefixes),
        "NSM_LABELS": _labels(endpoint.labels),
    }
    return Component(endpoint.name, "nse", endpoint.name, {**environment, **endpoint.environment}, is_workload=True)


def _client(run: RunDir, node: Node, client: ClientSpec) -> Component:
    environment = {
        "NSM_CONNECT_TO": manager_of(run, node),
        "NSM_NETWORK_SERVICES": ",".join(client.wires),
        "NSM_LABELS": _labels(client.labels),
    }
    return Component(client.name, "nsc", client.name, environment, is_workload=True)


def _with_common(run: RunDir, part: Component, node: str, common: Mapping[str, str]) -> Component:
    own = {
        "NSM_NAME": part.name,
        "NODE_NAME": node,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{run.identity_of(part.name)}",
        "TMPDIR": str(run.temporary),
    }
    return Component(part.name, part.command, part.place, {**common, **own, **part.environment}, part.is_workload)


def _node_of(part: Component, topology: Topology) -> str:
    placed = {workload.name: workload.node for workload in topology.workloads}
    return placed.get(part.name, part.place)


def _path(part: Component, node: str) -> str:
    """What stands behind the trust domain in a component's identity: the node, and its role there or its name."""
    return f"{node}/{part.name if part.is_workload else part.name.removesuffix(f'-{node}')}"


def _entry(run: RunDir, name: str, path: str) -> str:
    return f"socket:{run.identity_of(name)}=spiffe://{TRUST_DOMAIN}/{path}"


def _role(role: str, node: str) -> str:
    return f"{role}-{node}"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}:{value}" for key, value in labels.items())
