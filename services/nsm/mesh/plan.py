"""The processes of a topology: every component with its namespaces, its identity and its environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace

from nsm.chains.elements.vlan import VIA
from nsm.chains.transport.urls import Address

from .model import (
    CHAINED,
    CLIENTS,
    DEFAULT_PAYLOAD,
    DEFAULT_PREFIXES,
    RUNS,
    SUPPLIER,
    ClientSpec,
    EndpointSpec,
    Node,
    Topology,
    Uplink,
)
from .rundir import RunDir

TRUST_DOMAIN = "local.mesh"
OPERATOR = "operator"
"""The identity with which the supervisor calls components."""
_REGISTRY_PORT, _MANAGER_PORT, _VLAN_SERVER_PORT = 5002, 5001, 5003
_POINT_TO_POINT = {"p2p": "true"}
"""The default labels of a forwarder."""

PROGRAM = "program"
"""The command of a component that runs a user's program."""
VLAN_SERVER = "nse-remote-vlan"
VL3 = "nse-vl3"
BALANCER = "lb-vl3"
_OPERATOR_ID = f"spiffe://{TRUST_DOMAIN}/{OPERATOR}"
_ENDPOINTS = (*RUNS, VL3, VLAN_SERVER, PROGRAM)
START_ORDER = (("identity",), ("registry", "nsmgr", "ipam"), ("forwarder-kernel", *_ENDPOINTS), CLIENTS)
"""Groups of commands, in the order in which they start."""
STOP_ORDER = (*CLIENTS, *_ENDPOINTS, "forwarder-kernel", "ipam", "nsmgr", "registry", "identity")
"""Clients stop first, so that they close their wires while all other components run."""
REGISTERED = (*_ENDPOINTS, "forwarder-kernel")
"""The commands that register themselves as endpoints."""
_SERVERS = ("registry", "nsmgr", *REGISTERED)
"""The commands that receive NSM_INTERMEDIARIES."""
_INTERMEDIARIES = ",".join(f"spiffe://{TRUST_DOMAIN}/*/{each}" for each in ("nsmgr", "forwarder", "stage/*"))
"""Patterns for the managers, forwarders and stages of chains of all nodes, including later ones; other workloads cannot
have such names. Programs of the user do not, even as stages.
"""


@dataclass(frozen=True)
class Component:
    """A process to run: its `nsm` command, its namespaces (by the name of a node or a workload), its environment.

    For `PROGRAM`, it runs `program`. Components with variables from the file run in the file's `folder`, since values
    may be relative paths. `files` are the contents of files that it reads, by path.
    """

    name: str
    command: str
    node: str
    place: str
    environment: Mapping[str, str] = field(repr=False)
    is_workload: bool = False
    program: tuple[str, ...] = ()
    folder: str = "/"
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_waiting: bool = False
    """Whether it is started only when a supplier asks for it."""

    @property
    def identity(self) -> str:
        """Its SPIFFE ID: the node, and its role there or its name; a stage of a chain has both."""
        path = self.name if self.is_workload else self.name.removesuffix(f"-{self.node}")
        path = f"stage/{path}" if self.command in CHAINED else path
        return f"spiffe://{TRUST_DOMAIN}/{self.node}/{path}"


def manager_of(run: RunDir, node: str) -> str:
    """The URL of a node's manager for its workloads."""
    return f"unix://{run.socket_of(role_of('nsmgr', node))}"


def forwarder_of(run: RunDir, node: str) -> str:
    """The URL of a node's forwarder for its manager."""
    return f"unix://{run.socket_of(role_of('forwarder', node))}"


def role_of(role: str, node: str) -> str:
    """The name of a component that every node has."""
    return f"{role}-{node}"


def plan(run: RunDir, topology: Topology, common: Mapping[str, str]) -> list[Component]:
    """The components of a mesh; `common` is part of every environment."""
    first = topology.nodes[0].name
    environment = {"NSM_TRUST_DOMAIN": TRUST_DOMAIN, "NSM_ENTRIES_FILE": str(run.entries)}
    environment["NSM_AUTHORITY_FILE"] = str(run.authority)
    parts = [Component("identity", "identity", first, first, environment), _registry(topology, first)]
    if topology.vl3:
        parts.append(_prefix_service(run, topology, first))
    for node in topology.nodes:
        parts += _of_node(run, topology, node)
    parts += [_endpoint(run, topology, endpoint) for endpoint in topology.endpoints]
    parts += [_client(run, topology, client) for client in topology.clients]
    trusted = _trusted(topology)
    return [_with_common(run, part, {**common, **(trusted if part.command in _SERVERS else {})}) for part in parts]


def _trusted(topology: Topology) -> dict[str, str]:
    """Who may vouch for clients, and who may watch connections of others: the operator, and load balancers."""
    names = [f"{each.node}/{each.name}" for each in topology.clients if each.runs == BALANCER]
    balancers = [f"spiffe://{TRUST_DOMAIN}/{name}" for name in names]
    return {"NSM_INTERMEDIARIES": _INTERMEDIARIES, "NSM_MONITOR_VIEWERS": ",".join([_OPERATOR_ID, *balancers])}


def entries(run: RunDir, parts: Sequence[Component]) -> str:
    """The entries for `nsm identity`: identities by socket."""
    named = {OPERATOR: _OPERATOR_ID, **{part.name: part.identity for part in parts[1:]}}
    return "".join(f"socket:{run.identity_of(name)}={spiffe_id}\n" for name, spiffe_id in named.items())


def _registry(topology: Topology, node: str) -> Component:
    environment = {"NSM_LISTEN_ON": _registry_url(topology), **_registration(topology)}
    return Component(role_of("registry", node), "registry", node, node, environment)


def _prefix_service(run: RunDir, topology: Topology, node: str) -> Component:
    """Hands out prefixes to the endpoints of vL3 services, and to no other components."""
    clients = [f"spiffe://{TRUST_DOMAIN}/{each.node}/{each.name}" for each in topology.endpoints if each.is_vl3]
    environment = {
        "NSM_LISTEN_ON": ",".join(_prefix_services(run, topology)),
        "NSM_PREFIX": ",".join(map(str, topology.vl3)),
        "NSM_STORE": f"sqlite://{run.temporary / 'ipam.db'}",
        "NSM_CLIENTS": ",".join(clients),
    }
    return Component(role_of("ipam", node), "ipam", node, node, environment)


def _prefix_services(run: RunDir, topology: Topology) -> list[str]:
    """The URL for each network."""
    return [f"unix://{run.socket_of(f'ipam-{position}')}" for position in range(len(topology.vl3))]


def _registration(topology: Topology) -> dict[str, str]:
    """Who may register forwarders and endpoints of vL3 services, and the addresses of nodes with several.

    Calls of these may come from any of their addresses. Endpoints of a vL3 trust each other's prefixes.
    """
    services = dict.fromkeys(map(_forwarder_service, topology.nodes))
    several = dict.fromkeys(each.node for each in topology.endpoints if each.vlans and _has_links(topology, each.node))
    return {
        "NSM_REGISTRATION_POLICY": ",".join(
            [*(f"{name}=spiffe://{TRUST_DOMAIN}/*/forwarder" for name in services), *_vl3_registration(topology)]
        ),
        **({"NSM_REGISTRATION_HOSTS": ",".join(map(topology.address_of, several))} if several else {}),
    }


def _vl3_registration(topology: Topology) -> list[str]:
    """A rule for each service of vL3 endpoints."""
    providers: dict[str, list[str]] = {}
    for each in topology.endpoints:
        for service in each.services if each.is_vl3 else ():
            providers.setdefault(service, []).append(f"spiffe://{TRUST_DOMAIN}/{each.node}/{each.name}")
    return [f"{service}={'|'.join([*ids, _OPERATOR_ID])}" for service, ids in providers.items()]


def _forwarder_service(node: Node) -> str:
    return node.manager_environment.get("NSM_FORWARDER_NETWORK_SERVICE_NAME") or "forwarder"


def _has_links(topology: Topology, node: str) -> bool:
    return sum(node in link.nodes for link in topology.links) > 1


def _of_node(run: RunDir, topology: Topology, node: Node) -> list[Component]:
    to_others = _url(topology, node.name, _MANAGER_PORT)
    manager = {
        "NSM_LISTEN_ON": f"{manager_of(run, node.name)},{to_others}",
        "NSM_REGISTRY_URL": _registry_url(topology),
        "NSM_REGISTRATION_POLICY": ",".join(
            [f"{_forwarder_service(node)}=spiffe://{TRUST_DOMAIN}/{node.name}/forwarder", *_vl3_registration(topology)]
        ),
        **node.manager_environment,
    }
    uplinks = [uplink for uplink in topology.uplinks if node.name in uplink.nodes]
    selectors = str(run.uplinks_of(node.name))
    files = {selectors: _selectors(uplinks)} if uplinks else {}
    forwarder = {
        "NSM_CONNECT_TO": manager_of(run, node.name),
        "NSM_LISTEN_ON": forwarder_of(run, node.name),
        "NSM_LABELS": _labels({**_POINT_TO_POINT, **node.forwarder_labels}),
        **({"NSM_TUNNEL_IP": address} if (address := topology.address_of(node.name)) else {}),
        **({"NSM_DEVICE_SELECTOR_FILE": selectors} if uplinks else {}),
        **node.forwarder_environment,
    }
    name = node.name
    own, others = _folder(topology, node.manager_environment), _folder(topology, node.forwarder_environment)
    return [
        Component(role_of("nsmgr", name), "nsmgr", name, name, manager, folder=own),
        Component(role_of("forwarder", name), "forwarder-kernel", name, name, forwarder, folder=others, files=files),
    ]


def _selectors(uplinks: Sequence[Uplink]) -> str:
    """A forwarder's device selector file. The MTU is a comment, so that a forwarder restarts if it changes."""
    interfaces = [{"name": uplink.name, "matches": [{"labelSelector": [{VIA: uplink.name}]}]} for uplink in uplinks]
    comments = "".join(f"# {uplink.name}: MTU {uplink.mtu}\n" for uplink in uplinks)
    return comments + json.dumps({"interfaces": interfaces}, indent=1)


def _registry_url(topology: Topology) -> str:
    return _url(topology, topology.nodes[0].name, _REGISTRY_PORT)


def _url(topology: Topology, node: str, port: int) -> str:
    return str(Address(host=topology.address_of(node) or "127.0.0.1", port=port))


def _endpoint(run: RunDir, topology: Topology, endpoint: EndpointSpec) -> Component:
    if endpoint.vlans:
        return _vlan_server(topology, endpoint)
    told = _as_program(topology, endpoint) if endpoint.command else _as_responder(topology, endpoint)
    if endpoint.is_vl3:
        told = _as_vl3(run, topology, endpoint)
    elif endpoint.runs in CHAINED:
        told = _as_part_of_a_chain(topology, endpoint)
    elif endpoint.runs == SUPPLIER:
        told = _as_supplier(topology, endpoint)
    environment = {"NSM_CONNECT_TO": manager_of(run, endpoint.node), **told, **endpoint.environment}
    command = PROGRAM if endpoint.command else VL3 if endpoint.is_vl3 else endpoint.runs
    folder = _folder(topology, endpoint.command or endpoint.environment)
    name, program = endpoint.name, endpoint.command
    return Component(
        name, command, endpoint.node, name, environment, True, program, folder, is_waiting=endpoint.on_demand
    )


def _vlan_server(topology: Topology, endpoint: EndpointSpec) -> Component:
    """Registered directly in the registry: through a manager, requests would go to that node's forwarder."""
    position = [each.name for each in topology.endpoints if each.vlans].index(endpoint.name)
    environment = {
        "NSM_CONNECT_TO": _registry_url(topology),
        "NSM_LISTEN_ON": _url(topology, endpoint.node, _VLAN_SERVER_PORT + position),
        "NSM_SERVICES": ", ".join(map(str, endpoint.vlans)),
        "NSM_CIDR_PREFIX": ",".join(endpoint.prefixes or DEFAULT_PREFIXES),
        **({"NSM_REGISTER_SERVICE": "false"} if _is_described(topology, endpoint) else {}),
        **endpoint.environment,
    }
    node, folder = endpoint.node, _folder(topology, endpoint.environment)
    return Component(endpoint.name, VLAN_SERVER, node, node, environment, is_workload=True, folder=folder)


def _folder(topology: Topology, named: Sized) -> str:
    return topology.folder if named else "/"


def _as_responder(topology: Topology, endpoint: EndpointSpec) -> dict[str, str]:
    described = {service.name: service for service in topology.services}
    payload = next((described[name].payload for name in endpoint.services if name in described), DEFAULT_PAYLOAD)
    return {
        "NSM_SERVICE_NAMES": ",".join(endpoint.services),
        "NSM_PAYLOAD": endpoint.payload or payload,
        "NSM_CIDR_PREFIX": ",".join(endpoint.prefixes or DEFAULT_PREFIXES),
        "NSM_LABELS": _labels(endpoint.labels),
        **({"NSM_REGISTER_SERVICE": "false"} if _is_described(topology, endpoint) else {}),
    }


def _as_vl3(run: RunDir, topology: Topology, endpoint: EndpointSpec) -> dict[str, str]:
    return {
        "NSM_SERVICE_NAMES": ",".join(endpoint.services),
        "NSM_PREFIX_SERVER_URL": ",".join(_prefix_services(run, topology)),
        "NSM_LABELS": _labels(endpoint.labels),
        **({"NSM_REGISTER_SERVICE": "false"} if _is_described(topology, endpoint) else {}),
    }


def _as_part_of_a_chain(topology: Topology, endpoint: EndpointSpec) -> dict[str, str]:
    told = _as_responder(topology, endpoint)
    return {
        "NSM_SERVICE_NAME": told["NSM_SERVICE_NAMES"],
        "NSM_PAYLOAD": told["NSM_PAYLOAD"],
        "NSM_LABELS": told["NSM_LABELS"],
        "NSM_REGISTER_SERVICE": told.get("NSM_REGISTER_SERVICE", "true"),
    }


def _as_supplier(topology: Topology, endpoint: EndpointSpec) -> dict[str, str]:
    """It starts the endpoints on demand that share a service with it; of those the ones on its client's node first."""
    waiting = [each for each in topology.endpoints if each.on_demand and set(each.services) & set(endpoint.services)]
    supplied = ",".join(f"{each.name}@{each.node}" for each in waiting)
    return {**_as_part_of_a_chain(topology, endpoint), "NSM_SUPPLIES": supplied}


def supplied_by(part: Component) -> set[str]:
    """The endpoints that a component may have started."""
    items = part.environment.get("NSM_SUPPLIES", "").split(",") if part.command == SUPPLIER else []
    return {item.partition("@")[0] for item in items}


def _as_program(topology: Topology, endpoint: EndpointSpec) -> dict[str, str]:
    """A user's program receives only what the file sets, since it may not know these variables."""
    told = {
        "NSM_SERVICE_NAMES": ",".join(endpoint.services),
        "NSM_PAYLOAD": endpoint.payload or "",
        "NSM_CIDR_PREFIX": ",".join(endpoint.prefixes),
        "NSM_LABELS": _labels(endpoint.labels),
        "NSM_REGISTER_SERVICE": "false" if _is_described(topology, endpoint) else "",
    }
    return {key: value for key, value in told.items() if value}


def _is_described(topology: Topology, endpoint: EndpointSpec) -> bool:
    """Whether the file describes a service of the endpoint: then the mesh's operator registers all its services."""
    return any(service.name in endpoint.services for service in topology.services)


def _client(run: RunDir, topology: Topology, client: ClientSpec) -> Component:
    environment = {
        "NSM_CONNECT_TO": manager_of(run, client.node),
        "NSM_NETWORK_SERVICES": ",".join(client.wires),
        "NSM_LABELS": _labels(client.labels),
        "NSM_STATE_FOLDER": str(run.temporary / f"{client.name}.state"),
        **(_as_balancer(run, topology) if client.runs == BALANCER else {}),
        **client.environment,
    }
    folder = _folder(topology, client.environment)
    return Component(client.name, client.runs, client.node, client.name, environment, is_workload=True, folder=folder)


def _as_balancer(run: RunDir, topology: Topology) -> dict[str, str]:
    """It reads the monitors of all managers by their sockets: their addresses are the nodes', not its own network's."""
    return {"NSM_MANAGERS": ",".join(manager_of(run, node.name) for node in topology.nodes)}


def _with_common(run: RunDir, part: Component, common: Mapping[str, str]) -> Component:
    own = {
        "NSM_NAME": part.name,
        "NODE_NAME": part.node,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{run.identity_of(part.name)}",
        "TMPDIR": str(run.temporary),
        **(dict([run.mark_of(part.name)]) if part.command == PROGRAM else {}),
    }
    return replace(part, environment={**common, **own, **part.environment})


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}:{value}" for key, value in labels.items())
