"""The two kinds of record that a registry keeps, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from nsm.apis.registry import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)

from .registry import Found, R


@dataclass(frozen=True)
class Kind(Generic[R]):
    """One kind of record: its messages, and the path of its gRPC service."""

    noun: str
    service: str
    record: type[R]
    query: type[Any]
    response: type[Any]
    from_query: Callable[[Any], tuple[R, bool]]
    to_query: Callable[[R, bool], Any]
    from_response: Callable[[Any], Found[R]]
    to_response: Callable[[Found[R]], Any]
    url: Callable[[R], str]


SERVICES: Kind[NetworkService] = Kind(
    noun="network service",
    service="/registry.NetworkServiceRegistry",
    record=NetworkService,
    query=NetworkServiceQuery,
    response=NetworkServiceResponse,
    from_query=lambda query: (query.network_service or NetworkService(), query.watch),
    to_query=lambda record, watch: NetworkServiceQuery(network_service=record, watch=watch),
    from_response=lambda answer: Found(answer.network_service or NetworkService(), answer.deleted),
    to_response=lambda found: NetworkServiceResponse(network_service=found.record, deleted=found.deleted),
    url=lambda record: "",
)

ENDPOINTS: Kind[NetworkServiceEndpoint] = Kind(
    noun="network service endpoint",
    service="/registry.NetworkServiceEndpointRegistry",
    record=NetworkServiceEndpoint,
    query=NetworkServiceEndpointQuery,
    response=NetworkServiceEndpointResponse,
    from_query=lambda query: (query.network_service_endpoint or NetworkServiceEndpoint(), query.watch),
    to_query=lambda record, watch: NetworkServiceEndpointQuery(network_service_endpoint=record, watch=watch),
    from_response=lambda answer: Found(answer.network_service_endpoint or NetworkServiceEndpoint(), answer.deleted),
    to_response=lambda found: NetworkServiceEndpointResponse(
        network_service_endpoint=found.record, deleted=found.deleted
    ),
    url=lambda record: record.url,
)
