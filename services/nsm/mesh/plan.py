"""The processes of a topology: every component with its namespaces, its identity and its environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace

from nsm.chains.elements.vlan import VIA
from nsm.chains.model.domains import join, split
from nsm.chains.registry.resolve_domain import PROXY, REGISTRY
from nsm.chains.transport.urls import Address

from .model import (
    CHAINED,
    CLIENTS,
    DEFAULT_PAYLOAD,
    DEFAULT_PREFIXES,
    LOCAL_DOMAIN,
    RUNS,
    SUPPLIER,
    VL3,
    ClientSpec,
    Domain,
    EndpointSpec,
    Node,
    Topology,
    Uplink,
)
from .rundir import RunDir

OPERATOR = "operator"
"""The identity with which the supervisor calls components."""
_REGISTRY_PORT, _MANAGER_PORT, _VLAN_SERVER_PORT = 5002, 5001, 5003
_PROXY_PORT, _REGISTRY_PROXY_PORT, _DNS_PORT = 5004, 5005, 53
_POINT_TO_POINT = {"p2p": "true"}
"""The default labels of a forwarder."""

PROGRAM = "program"
"""The command of a component that runs a user's program."""
VLAN_SERVER = "nse-remote-vlan"
PROXIES = ("nsmgr-proxy", "registry-proxy")
BALANCER = "lb-vl3"
VIEW = "view"
_FORWARDERS = ("forwarder-kernel", "forwarder-vpp")
_ENDPOINTS = (*RUNS, VLAN_SERVER, PROGRAM)
AGENT = "agent"
"""The component that keeps the wires of what `nsm attach` names; it is started with the first of them."""
START_ORDER = (
    ("identity", "dns-server"),
    ("registry", *PROXIES, "nsmgr", "ipam"),
    (*_FORWARDERS, *_ENDPOINTS),
    (*CLIENTS, AGENT),
)
"""Groups of commands, in the order in which they start; the view starts once the mesh is up."""
STOP_ORDER = (
    VIEW,
    *(AGENT, *CLIENTS, *_ENDPOINTS, *_FORWARDERS, "ipam", "nsmgr"),
    *(*PROXIES, "registry", "dns-server", "identity"),
)
"""Clients stop first, so that they close their wires while all other components run."""
REGISTERED = (*_ENDPOINTS, *_FORWARDERS)
"""The commands that register themselves as endpoints."""
_SERVERS = ("registry", "nsmgr", *PROXIES, *REGISTERED)
"""The commands that receive NSM_INTERMEDIARIES."""
_VOUCH, _VOUCH_IN_DOMAINS = ("nsmgr", "forwarder", "stage/*"), ("registry", *PROXIES)
"""The roles that may vouch for clients, and those that may if there are several domains.

Workloads other than stages of chains cannot have such names; programs of the user do not, even as stages.
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
    """Empty: it runs where the supervisor does, and only its sockets lead into the mesh."""
    environment: Mapping[str, str] = field(repr=False)
    is_workload: bool = False
    program: tuple[str, ...] = ()
    folder: str = "/"
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    domain: str = LOCAL_DOMAIN
    is_waiting: bool = False
    """Whether it is started only when a supplier asks for it."""

    @property
    def identity(self) -> str:
        """Its SPIFFE ID: the node, and its role there or its name; a stage of a chain has both."""
        path = self.name if self.is_workload else self.name.removesuffix(f"-{self.node}")
        path = f"stage/{path}" if self.command in CHAINED else path
        path = "forwarder" if self.command in _FORWARDERS else path
        return f"spiffe://{self.domain}/{self.node}/{path}"


def manager_of(run: RunDir, node: str) -> str:
    """The URL of a node's manager for its workloads."""
    return f"unix://{run.socket_of(role_of('nsmgr', node))}"


def forwarders_of(node: Node) -> list[str]:
    """The names of a node's forwarders: further ones have their kind in it."""
    further = [f"forwarder-{each.kind}" for each in node.forwarders[1:]]
    return [role_of(role, node.name) for role in ("forwarder", *further)]


def registry_of(run: RunDir, domain: Domain) -> str:
    """The URL of a domain's registry for the view."""
    return f"unix://{run.socket_of(role_of('registry', domain.first))}"


def role_of(role: str, node: str) -> str:
    """The name of a component that every node has."""
    return f"{role}-{node}"


def issuer_of(topology: Topology, domain: Domain) -> str:
    """The name of a domain's identity issuer."""
    return role_of("identity", domain.first) if topology.domains else "identity"


def plan(run: RunDir, topology: Topology, common: Mapping[str, str]) -> list[Component]:
    """The components of a mesh; `common` is part of every environment."""
    parts = [part for domain in topology.all_domains for part in _of_domain(run, topology, domain)]
    if topology.vl3:
        parts.append(_prefix_service(run, topology, topology.nodes[0].name))
    for node in topology.managed:
        parts += _of_node(run, topology, node)
    parts += [_endpoint(run, topology, endpoint) for endpoint in topology.endpoints]
    parts += [_client(run, topology, client) for client in topology.clients]
    parts.append(_view(run, topology))
    trusted = _trusted(topology)
    whole = [_with_common(run, part, {**common, **(trusted if part.command in _SERVERS else {})}) for part in parts]
    return [replace(part, domain=topology.domain_of(part.node).name) for part in whole]


def operator_of(topology: Topology, domain: Domain) -> str:
    """The name of the Workload API socket by which the supervisor is the operator of a domain."""
    return OPERATOR if domain == topology.all_domains[0] else role_of(OPERATOR, domain.first)


def _operator_id(domain: Domain) -> str:
    return f"spiffe://{domain.name}/{OPERATOR}"


def view_in(topology: Topology, domain: Domain) -> str:
    """The name of the Workload API socket by which the view has its identity in a domain."""
    return VIEW if domain == topology.all_domains[0] else role_of(VIEW, domain.first)


def _view_id(domain: Domain) -> str:
    return f"spiffe://{domain.name}/{VIEW}"


def entries(run: RunDir, topology: Topology, parts: Sequence[Component], domain: Domain) -> str:
    """The entries for a domain's `nsm identity`: identities by socket."""
    own = {part.name: part.identity for part in parts if part.domain == domain.name and part.command not in _WITHOUT}
    named = {operator_of(topology, domain): _operator_id(domain), view_in(topology, domain): _view_id(domain), **own}
    return "".join(f"socket:{run.identity_of(name)}={spiffe_id}\n" for name, spiffe_id in named.items())


def agent(run: RunDir, topology: Topology, common: Mapping[str, str]) -> Component:
    """The agent of the mesh: it serves all nodes."""
    node = topology.nodes[0].name
    environment = {
        **common,
        "NSM_NAME": AGENT,
        "NSM_STATE_FOLDER": str(run.attachments),
        "NSM_KEEP_WIRES": "false",
        "TMPDIR": str(run.temporary),
    }
    return Component(AGENT, AGENT, node, node, environment, domain=topology.domain_of(node).name)


def attached_entries(run: RunDir, topology: Topology, attached: Mapping[str, str], domain: Domain) -> str:
    """The entries for what is attached in a domain: its nodes by the names of the attachments."""
    ids = {name: f"spiffe://{domain.name}/{node}/{name}" for name, node in attached.items() if node in domain.nodes}
    return "".join(f"socket:{run.identity_of(name)}={spiffe_id}\n" for name, spiffe_id in ids.items())


_WITHOUT = ("identity", "dns-server", AGENT, VIEW)
"""The commands without an identity of a node; the view has one in each domain."""


def _trusted(topology: Topology) -> dict[str, str]:
    """Who may vouch for clients, and who may watch connections of others: operators, the view, balancers of a vL3.

    Patterns for the managers and forwarders of all nodes, also of later ones; workloads may not have such names.
    """
    roles = (*_VOUCH, *(_VOUCH_IN_DOMAINS if topology.domains else ()))
    vouch = [f"spiffe://{domain.name}/*/{role}" for domain in topology.all_domains for role in roles]
    balancers = [_workload_id(topology, each) for each in topology.clients if each.runs == BALANCER]
    viewers = [*map(_operator_id, topology.all_domains), *map(_view_id, topology.all_domains), *balancers]
    return {"NSM_INTERMEDIARIES": ",".join(vouch), "NSM_MONITOR_VIEWERS": ",".join(viewers)}


def _of_domain(run: RunDir, topology: Topology, domain: Domain) -> list[Component]:
    """The components that a domain has once."""
    parts = [_issuer(run, topology, domain), _registry(run, topology, domain)]
    if topology.domains and domain == topology.domains[0]:
        parts.insert(0, _dns_server(run, topology))
    if topology.domains and not domain.is_floating:
        parts += _proxies(topology, domain)
    return parts


def _issuer(run: RunDir, topology: Topology, domain: Domain) -> Component:
    name, node = issuer_of(topology, domain), domain.first
    environment = {
        "NSM_TRUST_DOMAIN": domain.name,
        "NSM_ENTRIES_FILE": str(run.entries_of(name)),
        "NSM_AUTHORITY_FILE": str(run.authority_of(name)),
    }
    if others := [each for each in topology.domains if each != domain]:
        environment["NSM_BUNDLE_FILE"] = str(run.bundle_of(name))
        bundles = {each.name: run.bundle_of(issuer_of(topology, each)) for each in others}
        environment["NSM_FEDERATED_BUNDLES"] = ",".join(f"{each}={path}" for each, path in bundles.items())
        roles = [f"/*/{role}" for role in _VOUCH_IN_DOMAINS]
        environment["NSM_FEDERATED_WORKLOADS"] = ",".join([*roles, *_far(topology)])
    return Component(name, "identity", node, node, environment)


def _far(topology: Topology) -> list[str]:
    """Who calls components of other domains without a proxy: a vL3 has one prefix service for all its endpoints."""
    endpoints = [f"/{each.node}/{each.name}" for each in topology.endpoints if each.is_vl3]
    return ["/*/ipam", *endpoints] if endpoints else []


def _dns_server(run: RunDir, topology: Topology) -> Component:
    """Where the registries and proxies of all domains are; one server for all of them."""
    records: dict[str, list[str]] = {}
    for domain in topology.domains:
        records[f"{REGISTRY}.{domain.name}"] = [_place(topology, domain.first, _REGISTRY_PORT)]
        if not domain.is_floating:
            records[f"{PROXY}.{domain.name}"] = [_place(topology, domain.first, _PROXY_PORT)]
    node, file = topology.domains[0].first, str(run.records)
    environment = {"NSM_LISTEN_ON": _place(topology, node, _DNS_PORT), "NSM_RECORDS_FILE": file}
    files = {file: json.dumps(records, indent=1) + "\n"}
    return Component(role_of("dns-server", node), "dns-server", node, node, environment, files=files)


def _proxies(topology: Topology, domain: Domain) -> list[Component]:
    node, names = domain.first, _place(topology, topology.domains[0].first, _DNS_PORT)
    proxy = {
        "NSM_LISTEN_ON": _url(topology, node, _PROXY_PORT),
        "NSM_REGISTRY_URL": _registry_url(topology, node),
        "NSM_REGISTRY_PROXY_URL": _url(topology, node, _REGISTRY_PROXY_PORT),
        "NSM_ADMITTED_DOMAINS": _admitted(topology, domain),
    }
    finder = {"NSM_LISTEN_ON": _url(topology, node, _REGISTRY_PROXY_PORT), "NSM_DNS_SERVERS": names}
    return [
        Component(role_of("nsmgr-proxy", node), "nsmgr-proxy", node, node, proxy),
        Component(role_of("registry-proxy", node), "registry-proxy", node, node, finder),
    ]


def _admitted(topology: Topology, domain: Domain) -> str:
    admits = domain.admits
    if admits is None:
        admits = {each.name: ("*",) for each in topology.domains if each != domain}
    return ",".join(f"{name}={'|'.join(services)}" for name, services in admits.items())


def _registry(run: RunDir, topology: Topology, domain: Domain) -> Component:
    node = domain.first
    listen_on = f"{_registry_url(topology, node)},{registry_of(run, domain)}"
    environment = {"NSM_LISTEN_ON": listen_on, **_registration(topology, domain)}
    if topology.domains:
        environment["NSM_ADMITTED_DOMAINS"] = _admitted(topology, domain)
        if not domain.is_floating:
            environment["NSM_PROXY_REGISTRY_URL"] = _url(topology, node, _PROXY_PORT)
    return Component(role_of("registry", node), "registry", node, node, environment)


def _prefix_service(run: RunDir, topology: Topology, node: str) -> Component:
    """Hands out prefixes to the endpoints of vL3 services, and to no other components."""
    clients = [_workload_id(topology, each) for each in topology.endpoints if each.is_vl3]
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


def _workload_id(topology: Topology, workload: ClientSpec | EndpointSpec) -> str:
    return f"spiffe://{topology.domain_of(workload.node).name}/{workload.node}/{workload.name}"


def _registration(topology: Topology, domain: Domain) -> dict[str, str]:
    """Who may register forwarders and endpoints of vL3 services, and the addresses of nodes with several.

    Calls of these may come from any of their addresses. Endpoints of a vL3 trust each other's prefixes.
    """
    services = dict.fromkeys(_forwarder_service(node) for node in topology.nodes if node.name in domain.nodes)
    several = dict.fromkeys(each.node for each in topology.endpoints if each.vlans and _has_links(topology, each.node))
    rules = [f"{name}=spiffe://{domain.name}/*/forwarder" for name in services]
    return {
        "NSM_REGISTRATION_POLICY": ",".join([*rules, *_vl3_registration(topology, domain)]),
        **({"NSM_REGISTRATION_HOSTS": ",".join(map(topology.address_of, several))} if several else {}),
    }


def _vl3_registration(topology: Topology, domain: Domain) -> list[str]:
    """A rule for each service of vL3 endpoints, which suppliers register for, too; by its name in `domain`."""
    networks = {name for each in topology.endpoints if each.is_vl3 for name in _names_in(topology, each, domain)}
    providers: dict[str, list[str]] = {}
    for each in topology.endpoints:
        for name in _names_in(topology, each, domain) if each.runs in (VL3, SUPPLIER) else ():
            if name in networks:
                providers.setdefault(name, []).append(_workload_id(topology, each))
    operators = list(map(_operator_id, topology.all_domains))
    return [f"{service}={'|'.join([*ids, *operators])}" for service, ids in providers.items()]


def _names_in(topology: Topology, endpoint: EndpointSpec, domain: Domain) -> list[str]:
    """The names of an endpoint's services in a domain: those of others have their domain in them."""
    own = topology.domain_of(endpoint.node).name
    split_names = [(plain, where or own) for plain, where in map(split, endpoint.services)]
    return [plain if where == domain.name else join(plain, where) for plain, where in split_names]


def _forwarder_service(node: Node) -> str:
    return node.manager_environment.get("NSM_FORWARDER_NETWORK_SERVICE_NAME") or "forwarder"


def _has_links(topology: Topology, node: str) -> bool:
    return sum(node in link.nodes for link in topology.links) > 1


def _of_node(run: RunDir, topology: Topology, node: Node) -> list[Component]:
    to_others, domain = _url(topology, node.name, _MANAGER_PORT), topology.domain_of(node.name)
    manager = {
        "NSM_LISTEN_ON": f"{manager_of(run, node.name)},{to_others}",
        "NSM_REGISTRY_URL": _registry_url(topology, node.name),
        "NSM_REGISTRATION_POLICY": ",".join(
            [
                f"{_forwarder_service(node)}=spiffe://{domain.name}/{node.name}/forwarder",
                *_vl3_registration(topology, domain),
            ]
        ),
        **node.manager_environment,
    }
    uplinks = [uplink for uplink in topology.uplinks if node.name in uplink.nodes]
    selectors = str(run.uplinks_of(node.name))
    files = {selectors: _selectors(uplinks)} if uplinks else {}
    common = {
        "NSM_CONNECT_TO": manager_of(run, node.name),
        **({"NSM_TUNNEL_IP": address} if (address := topology.address_of(node.name)) else {}),
        **({"NSM_DEVICE_SELECTOR_FILE": selectors} if uplinks else {}),
    }
    own = _folder(topology, node.manager_environment)
    parts = [Component(role_of("nsmgr", node.name), "nsmgr", node.name, node.name, manager, folder=own)]
    for name, each in zip(forwarders_of(node), node.forwarders, strict=True):
        forwarder = {
            **common,
            "NSM_LISTEN_ON": f"unix://{run.socket_of(name)}",
            "NSM_LABELS": _labels({**_POINT_TO_POINT, **each.labels}),
            **({"NSM_VPP_DIRECTORY": str(run.temporary)} if each.kind == "vpp" else {}),
            **each.environment,
        }
        command, folder = f"forwarder-{each.kind}", _folder(topology, each.environment)
        parts.append(Component(name, command, node.name, node.name, forwarder, folder=folder, files=files))
    return parts


def _selectors(uplinks: Sequence[Uplink]) -> str:
    """A forwarder's device selector file. The MTU is a comment, so that a forwarder restarts if it changes."""
    interfaces = [{"name": uplink.name, "matches": [{"labelSelector": [{VIA: uplink.name}]}]} for uplink in uplinks]
    comments = "".join(f"# {uplink.name}: MTU {uplink.mtu}\n" for uplink in uplinks)
    return comments + json.dumps({"interfaces": interfaces}, indent=1)


def _registry_url(topology: Topology, node: str) -> str:
    """The URL of the registry of a node's domain."""
    return _url(topology, topology.domain_of(node).first, _REGISTRY_PORT)


def _url(topology: Topology, node: str, port: int) -> str:
    return str(Address(host=topology.address_of(node) or "127.0.0.1", port=port))


def _place(topology: Topology, node: str, port: int) -> str:
    """Address and port."""
    return _url(topology, node, port).removeprefix("tcp://")


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
    registered = _registered_name(endpoint)
    named = {"NSM_NAME": registered} if registered != endpoint.name else {}
    environment = {"NSM_CONNECT_TO": manager_of(run, endpoint.node), **named, **told, **endpoint.environment}
    command = PROGRAM if endpoint.command else endpoint.runs
    folder = _folder(topology, endpoint.command or endpoint.environment)
    name, program = endpoint.name, endpoint.command
    return Component(
        name, command, endpoint.node, name, environment, True, program, folder, is_waiting=endpoint.on_demand
    )


def _registered_name(endpoint: EndpointSpec) -> str:
    """The name that an endpoint registers: with the domain of its services, if that is another one."""
    return join(endpoint.name, next((domain for each in endpoint.services if (domain := split(each)[1])), ""))


def _vlan_server(topology: Topology, endpoint: EndpointSpec) -> Component:
    """Registered directly in the registry: through a manager, requests would go to that node's forwarder."""
    position = [each.name for each in topology.endpoints if each.vlans].index(endpoint.name)
    environment = {
        "NSM_CONNECT_TO": _registry_url(topology, endpoint.node),
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


def _view(run: RunDir, topology: Topology) -> Component:
    """It reads all managers and registries by their sockets, so that links that are cut do not blind it."""

    def managers(domain: Domain) -> list[str]:
        return [f"{name}={manager_of(run, name)}" for name in domain.nodes if name in managed]

    first, *others = topology.all_domains
    managed = {node.name for node in topology.managed}
    domains = [
        "|".join(
            [f"unix://{run.identity_of(view_in(topology, each))}", registry_of(run, each), *managers(each)],
        )
        for each in others
    ]
    environment = {
        "NSM_LISTEN_ON": f"unix://{run.socket_of(VIEW)}",
        "NSM_NEXT_FREE_PORT": "true",
        "NSM_REGISTRY_URL": registry_of(run, first),
        "NSM_MANAGERS": ",".join(managers(first)),
        "NSM_TOKEN_FILE": str(run.view_token),
        **({"NSM_OTHER_DOMAINS": ",".join(domains)} if domains else {}),
    }
    return Component(VIEW, VIEW, first.first, "", environment)


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
