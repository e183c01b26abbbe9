"""Variables of components that register themselves as endpoints, with upstream's names, meanings and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nsm.apis.payloads import ETHERNET, IP
from nsm.chains.composed import learned_intermediaries
from nsm.chains.config import duration, flag, items, pairs, text, url, variable
from nsm.chains.elements.orphans import Keeping
from nsm.chains.model.networks import Networks
from nsm.chains.policy import ClientPolicies, IdPatterns, RegistryClientPolicies, ServerPolicies, Trust, Trusting
from nsm.chains.transport import Pool

from .provided import Provided


def payload(value: str) -> str:
    """`IP` or `ETHERNET`. Raises ValueError."""
    if value not in {IP, ETHERNET}:
        raise ValueError(f"expected {IP} or {ETHERNET}")
    return value


def services(value: str) -> tuple[str, ...]:
    """Names of services, comma separated; at least one. Raises ValueError."""
    if not (names := items(value)):
        raise ValueError("expected the services to provide, comma separated")
    return names


def _networks(value: str) -> Networks:
    return Networks.parse(items(value))


@dataclass(frozen=True, kw_only=True)
class RegisteredConfig(ServerPolicies, RegistryClientPolicies, Trusting, Keeping):
    """Variables of every component that serves connections and registers itself: endpoints and forwarders."""

    name: str = variable("endpoint", text, "the endpoint's name; unique in the mesh")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    listen_on: str = variable("", url, "where to listen; empty: a socket in a temporary folder")
    dial_timeout: float = variable("5s", duration, "timeout for connecting to the manager")
    request_timeout: float = variable("15s", duration, "timeout for one attempt to register or to unregister")
    unregister_itself: bool = variable("false", flag, "unregister when stopping")


@dataclass(frozen=True, kw_only=True)
class ProviderConfig(RegisteredConfig):
    """Variables of every endpoint; subclasses define what it provides."""

    intermediaries: IdPatterns = variable(
        "",
        IdPatterns.parse,
        "SPIFFE IDs that may vouch for clients, patterns a,b; empty: all registered forwarders and managers",
    )
    register_service: bool = variable("true", flag, "also register the services themselves")
    accept_prefixes: Networks = variable(
        "", _networks, "from which clients may bring addresses and routes, besides single private addresses"
    )
    idle_timeout: float = variable("0", duration, "end when there was no connection for so long; 0: never")

    def provided(self) -> Sequence[Provided]:
        """The services to provide."""
        raise NotImplementedError

    def trust_by(self, pool: Pool) -> Trust:
        """Who may vouch for others: those listed or, if the list is empty, the managers and forwarders of the mesh."""
        if self.intermediaries:
            return self.trust
        return replace(self.trust, learned=learned_intermediaries(self.connect_to, pool))


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(ProviderConfig):
    """Variables of an endpoint whose services differ only by name. Subclasses set defaults and add variables."""

    service_names: tuple[str, ...] = variable("", services, "the services to provide")
    payload: str = variable(IP, payload, "what a wire carries: IP or ETHERNET")
    labels: dict[str, str] = variable("", pairs, "labels of the endpoint, key:value,..")

    def provided(self) -> Sequence[Provided]:
        """The services by name, all with one payload and the same labels."""
        return [Provided(name, self.payload, self.labels) for name in self.service_names]


@dataclass(frozen=True, kw_only=True)
class ChainedConfig(EndpointConfig, ClientPolicies):
    """Variables of an endpoint in a chain of services, which is a client of the next one."""

    service_names: tuple[str, ...] = variable(
        "", services, "the service whose chain it is part of", env="NSM_SERVICE_NAME"
    )
    payload: str = variable(ETHERNET, payload, "what a wire carries: IP or ETHERNET; used if the service is registered")
    labels: dict[str, str] = variable("", pairs, "labels, key:value,..; they also choose the next endpoint")
    register_service: bool = variable("false", flag, "also register the service, without matches")
