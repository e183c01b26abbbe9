"""What a view shows: wires with their paths, causes, attempts, events, and what the mesh consists of.

All values are frozen and become JSON, and are read from it, by `nsm.view.form`: the field names below are those of the
JSON; times are RFC 3339, in UTC. An empty text means that nothing is known; so does null for times and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class WireState(StrEnum):
    """Whether packets pass, as far as the mesh knows."""

    UP = "UP"
    DOWN = "DOWN"
    HEALING = "HEALING"
    """It is down, and a component is about to repair it or to request it elsewhere."""
    PENDING = "PENDING"
    """It was requested, and never existed: see the attempts."""
    UNHEARD = "UNHEARD"
    """The manager of its client does not respond: the wire may be up or down."""


class HopState(StrEnum):
    """The state of one component on a path."""

    UP = "UP"
    DOWN = "DOWN"
    HEALING = "HEALING"
    UNHEARD = "UNHEARD"
    UNKNOWN = "UNKNOWN"
    """No component reports it: the hop is behind the last one that responds."""


class Kind(StrEnum):
    """What a component is."""

    CLIENT = "client"
    MANAGER = "manager"
    FORWARDER = "forwarder"
    ENDPOINT = "endpoint"
    PROXY = "proxy"
    REGISTRY = "registry"
    UNKNOWN = "unknown"


class ComponentState(StrEnum):
    """Whether a component responds."""

    UP = "UP"
    UNHEARD = "UNHEARD"
    REGISTERED = "REGISTERED"
    """It is registered, and is not asked itself."""
    UNKNOWN = "UNKNOWN"
    """It has not responded yet."""


class EventKind(StrEnum):
    """What an event is about."""

    WIRE_UP = "wire-up"
    WIRE_DOWN = "wire-down"
    WIRE_HEALING = "wire-healing"
    WIRE_HEALED = "wire-healed"
    WIRE_MOVED = "wire-moved"
    """It has another endpoint now."""
    WIRE_REPAIRED = "wire-repaired"
    """A component repaired something of a wire that stays up."""
    WIRE_CLOSED = "wire-closed"
    WIRE_REFUSED = "wire-refused"
    """An attempt to make a wire failed."""
    COMPONENT_UNHEARD = "component-unheard"
    COMPONENT_HEARD = "component-heard"
    ENDPOINT_REGISTERED = "endpoint-registered"
    ENDPOINT_GONE = "endpoint-gone"
    SERVICE_CHANGED = "service-changed"
    SERVICE_GONE = "service-gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something is not well, from where it occurred."""

    sentence: str
    """What happened, in one sentence for people."""
    code: str = ""
    """A constant for programs, such as `PeerLost`, or the name of a gRPC status."""
    element: str = ""
    """The chain element that found it."""
    component: str = ""
    remedy: str = ""
    """What to do, or empty."""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One component on the path of a wire, in the order of the path."""

    name: str
    kind: Kind = Kind.UNKNOWN
    node: str = ""
    domain: str = ""
    identity: str = ""
    """Its SPIFFE ID."""
    id: str = ""
    """The connection's id at this component."""
    state: HopState = HopState.UNKNOWN
    since: datetime | None = None
    expires: datetime | None = None
    """When its token expires."""
    mechanism: str = ""
    """How the wire goes on from here, such as KERNEL or VXLAN."""
    interface: str = ""
    """The name of the interface here; for forwarders, of the one towards the endpoint."""
    elapsed_ms: float | None = None
    """How long this component and those behind it took to set up the wire, in milliseconds."""
    cause: Cause | None = None
    heard: datetime | None = None
    """If the manager does not respond: when it last did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What passed in one direction since the wire exists."""

    packets: int = 0
    bytes: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What passed over a wire, and when it was counted."""

    to_endpoint: Flow = field(default_factory=Flow)
    to_client: Flow = field(default_factory=Flow)
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The bytes that a wire had carried at some time."""

    at: datetime
    to_endpoint: int = 0
    to_client: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One wire from its client to its endpoint."""

    id: str
    """The connection's id at the client."""
    client: str
    service: str
    state: WireState
    interface: str = ""
    """The name of the client's interface."""
    domain: str = ""
    """The domain of the service, if it was requested by that; empty: that of the client."""
    endpoint: str = ""
    node: str = ""
    """The client's node."""
    client_domain: str = ""
    """The domain of that node."""
    endpoint_node: str = ""
    way: Sequence[str] = ()
    """How each section of it goes, such as `veth`, `VXLAN`, `WireGuard` or `VPP`."""
    client_addresses: Sequence[str] = ()
    """With their prefix lengths."""
    endpoint_addresses: Sequence[str] = ()
    routes: Sequence[str] = ()
    """The prefixes that the client reaches through it."""
    mtu: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    payload: str = ""
    since: datetime | None = None
    """Since when it has its state."""
    cause: Cause | None = None
    path: Sequence[Hop] = ()
    traffic: Traffic | None = None
    last_packet: datetime | None = None
    """The latest time at which a counter of it was seen to have grown."""
    heard: datetime | None = None
    """If the manager of its client does not respond: when it last did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An endpoint or forwarder that was tried for a wire, and what it answered last."""

    endpoint: str
    tries: int = 1
    sentence: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A wire that was requested and does not exist yet."""

    id: str
    """The connection's id at the client."""
    client: str
    service: str
    interface: str = ""
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tries: int = 1
    first: datetime | None = None
    last: datetime | None = None
    cause: Cause | None = None
    """What the last one was answered with."""
    reason: Cause | None = None
    """Why the client requests the wire again, if it had it before."""
    candidates: Sequence[Candidate] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that occurred."""

    number: int
    """Grows with each event of this view."""
    at: datetime
    kind: EventKind
    sentence: str
    wire: str = ""
    component: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A process of the mesh, apart from workloads."""

    name: str
    kind: Kind
    node: str = ""
    domain: str = ""
    url: str = ""
    identity: str = ""
    state: ComponentState = ComponentState.UNKNOWN
    since: datetime | None = None
    heard: datetime | None = None
    version: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered endpoint."""

    name: str
    services: Sequence[str] = ()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Its labels for each service."""
    node: str = ""
    domain: str = ""
    url: str = ""
    identity: str = ""
    registered: datetime | None = None
    expires: datetime | None = None
    wires: int = 0
    """How many wires it has now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One choice of endpoints in a match of a service."""

    selector: Mapping[str, str] = field(default_factory=dict)
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which clients a service serves by which endpoints."""

    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of clients."""
    routes: Sequence[Route] = ()
    fallthrough: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Labels of the forwarders that may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A network service."""

    name: str
    domain: str = ""
    payload: str = ""
    matches: Sequence[Match] = ()
    endpoints: Sequence[str] = ()
    wires: int = 0
    down: int = 0
    """How many of its wires are not up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, which has one manager."""

    name: str
    domain: str = ""
    manager: str = ""
    """The name of its manager."""
    url: str = ""
    state: ComponentState = ComponentState.UNKNOWN
    heard: datetime | None = None
    forwarders: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    clients: Sequence[str] = ()
    wires: int = 0
    """How many wires its clients have."""
    down: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What one registry knows."""

    name: str
    registry: str = ""
    """The URL of its registry."""
    state: ComponentState = ComponentState.UNKNOWN
    heard: datetime | None = None
    nodes: Sequence[str] = ()
    wires: int = 0
    down: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything at one moment; `position` is where the stream of changes continues."""

    at: datetime
    position: str = ""
    wires: Sequence[Wire] = ()
    attempts: Sequence[Attempt] = ()
    services: Sequence[Service] = ()
    endpoints: Sequence[Endpoint] = ()
    components: Sequence[Component] = ()
    nodes: Sequence[Node] = ()
    domains: Sequence[Domain] = ()
    events: Sequence[Event] = ()
    """The latest ones, oldest first."""


class ChangeKind(StrEnum):
    """What a change is about: the field of `Change` that it fills in; a `-gone` names its subject only."""

    SNAPSHOT = "snapshot"
    """Everything anew: the first change of a stream, and whenever changes were missed."""
    WIRE = "wire"
    WIRE_GONE = "wire-gone"
    ATTEMPT = "attempt"
    ATTEMPT_GONE = "attempt-gone"
    SERVICE = "service"
    SERVICE_GONE = "service-gone"
    ENDPOINT = "endpoint"
    ENDPOINT_GONE = "endpoint-gone"
    COMPONENT = "component"
    COMPONENT_GONE = "component-gone"
    NODE = "node"
    NODE_GONE = "node-gone"
    DOMAIN = "domain"
    DOMAIN_GONE = "domain-gone"
    EVENT = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item of the stream of changes."""

    kind: ChangeKind
    position: str = ""
    """Where the stream continues behind it: the id of the server-sent event."""
    subject: str = ""
    """The id of a wire or an attempt; NAME or NAME@DOMAIN of anything else; of an event what it is about."""
    snapshot: Snapshot | None = None
    wire: Wire | None = None
    attempt: Attempt | None = None
    service: Service | None = None
    endpoint: Endpoint | None = None
    component: Component | None = None
    node: Node | None = None
    domain: Domain | None = None
    event: Event | None = None
