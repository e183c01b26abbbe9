"""The API by which a wire is asked for and closed."""

from nsm.apis._generated.networkservice import (
    NetworkServiceBase,
    NetworkServiceRequest,
    NetworkServiceStub,
)

__all__ = [
    "NetworkServiceBase",
    "NetworkServiceRequest",
    "NetworkServiceStub",
]
