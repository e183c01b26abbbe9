"""What an endpoint provides, as it registers that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels


@dataclass(frozen=True)
class Provided:
    """One network service that an endpoint provides: what its wires carry, and the endpoint's labels for it."""

    service: str
    payload: str = IP
    labels: Mapping[str, str] = field(default_factory=dict)

    def service_record(self) -> NetworkService:
        """The service as it is registered."""
        return NetworkService(name=self.service, payload=self.payload)


def endpoint_record(name: str, url: str, provided: Iterable[Provided]) -> NetworkServiceEndpoint:
    """The endpoint `name` as it is registered: at `url`, with the labels that it has for each service."""
    services = list(provided)
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[each.service for each in services],
        network_service_labels={each.service: NetworkServiceLabels(labels=dict(each.labels)) for each in services},
        url=url,
    )
