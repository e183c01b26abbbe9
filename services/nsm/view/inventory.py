"""The records of registries as a view shows them."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint

from .model import Endpoint, Match, Route, Service
from .reports import moment


def endpoint_of(record: NetworkServiceEndpoint, *, node: str, domain: str) -> Endpoint:
    """An endpoint, without its count of wires."""
    return Endpoint(
        name=record.name,
        services=tuple(record.network_service_names),
        labels={service: dict(labels.labels) for service, labels in record.network_service_labels.items()},
        node=node,
        domain=domain,
        url=record.url,
        identity=record.path_ids[0] if record.path_ids else "",
        registered=moment(record.initial_registration_time),
        expires=moment(record.expiration_time),
    )


def service_of(record: NetworkService, *, domain: str) -> Service:
    """A service, without its endpoints and its counts of wires."""
    return Service(
        name=record.name,
        domain=domain,
        payload=record.payload,
        matches=tuple(
            Match(
                selector=dict(match.source_selector),
                routes=tuple(
                    Route(selector=dict(each.destination_selector), weight=each.weight) for each in match.routes
                ),
                fallthrough=match.fallthrough,
                metadata=_labels(match.metadata.labels) if match.metadata is not None else {},
            )
            for match in record.matches
        ),
    )


def same_but_time(one: Endpoint, other: Endpoint) -> bool:
    """Whether two records of an endpoint differ at most in when they expire, as those of a renewal do."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("name", "services", "labels", "node", "domain", "url", "identity", "registered")
    )


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(labels)
