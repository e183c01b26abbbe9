"""The variables of what registers itself as an endpoint: names, meanings and defaults are upstream's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nsm.apis.payloads import ETHERNET, IP
from nsm.chains.composed import learned_intermediaries
from nsm.chains.config import duration, flag, items, pairs, text, url, variable
from nsm.chains.elements.orphans import Keeping
from nsm.chains.model.networks import Networks
from nsm.chains.policy import IdPatterns, RegistryClientPolicies, ServerPolicies, Trust, Trusting
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
    """What every component reads that serves connections and registers itself: endpoints and forwarders."""

    name: str = variable("endpoint", text, "the endpoint's name; unique in the mesh")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    listen_on: str = variable("", url, "where to listen; empty: a socket in a folder of its own")
    dial_timeout: float = variable("5s", duration, "how long connecting to the manager may take")
    request_timeout: float = variable("15s", duration, "how long one try to register or to unregister may take")
    unregister_itself: bool = variable("false", flag, "unregister when stopping")


@dataclass(frozen=True, kw_only=True)
class ProviderConfig(RegisteredConfig):
    """What every endpoint reads; what it provides is for a subclass to say."""

    intermediaries: IdPatterns = variable(
        "",
        IdPatterns.parse,
        "SPIFFE IDs that may vouch for clients, patterns a,b; empty: the mesh's forwarders and managers, as registered",
    )
    register_service: bool = variable("true", flag, "register the services themselves too")
    accept_prefixes: Networks = variable(
        "", _networks, "of which clients may bring any addresses and routes along, besides single private addresses"
    )

    def provided(self) -> Sequence[Provided]:
        """The services to provide."""
        raise NotImplementedError

    def trust_by(self, pool: Pool) -> Trust:
        """Whom to believe: who is listed, or with nobody listed the forwarders and managers that the manager knows."""
        if self.intermediaries:
            return self.trust
        return replace(self.trust, learned=learned_intermediaries(self.connect_to, pool))


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(ProviderConfig):
    """What an endpoint reads whose services differ by their names alone. A subclass has defaults, and more."""

    service_names: tuple[str, ...] = variable("", services, "the services to provide")
    payload: str = variable(IP, payload, "what a wire carries: IP or ETHERNET")
    labels: dict[str, str] = variable("", pairs, "labels of the endpoint, key:value,..")

    def provided(self) -> Sequence[Provided]:
        """The services by name, all with one payload and the same labels."""
        return [Provided(name, self.payload, self.labels) for name in self.service_names]
