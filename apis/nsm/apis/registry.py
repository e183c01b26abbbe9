"""The API by which services and endpoints are made known and found."""

from nsm.apis._generated.registry import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointRegistryBase,
    NetworkServiceEndpointRegistryStub,
    NetworkServiceEndpointResponse,
    NetworkServiceLabels,
    NetworkServiceQuery,
    NetworkServiceRegistryBase,
    NetworkServiceRegistryStub,
    NetworkServiceResponse,
)

__all__ = [
    "Destination",
    "Match",
    "Metadata",
    "NetworkService",
    "NetworkServiceEndpoint",
    "NetworkServiceEndpointQuery",
    "NetworkServiceEndpointRegistryBase",
    "NetworkServiceEndpointRegistryStub",
    "NetworkServiceEndpointResponse",
    "NetworkServiceLabels",
    "NetworkServiceQuery",
    "NetworkServiceRegistryBase",
    "NetworkServiceRegistryStub",
    "NetworkServiceResponse",
]
