"""The services that an endpoint provides, as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels


@dataclass(frozen=True)
class Provided:
    """One network service that an endpoint provides: its payload, and the endpoint's labels for it."""

    service: str
    payload: str = IP
    labels: Mapping[str, str] = field(default_factory=dict)

    def service_record(self) -> NetworkService:
        """The record of the service."""
        return NetworkService(name=self.service, payload=self.payload)


def endpoint_record(name: str, url: str, provided: Iterable[Provided]) -> NetworkServiceEndpoint:
    """The record of the endpoint `name` at `url`, with its labels for each service."""
    services = list(provided)
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[each.service for each in services],
        network_service_labels={each.service: NetworkServiceLabels(labels=dict(each.labels)) for each in services},
        url=url,
    )
