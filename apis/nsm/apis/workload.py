"""The X.509 part of the SPIFFE Workload API."""

from nsm.apis._generated import (
    SpiffeWorkloadApiBase,
    SpiffeWorkloadApiStub,
    X509BundlesRequest,
    X509BundlesResponse,
    X509Svid,
    X509SvidRequest,
    X509SvidResponse,
)

__all__ = [
    "SpiffeWorkloadApiBase",
    "SpiffeWorkloadApiStub",
    "X509BundlesRequest",
    "X509BundlesResponse",
    "X509Svid",
    "X509SvidRequest",
    "X509SvidResponse",
]
