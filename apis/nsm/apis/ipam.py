"""The API by which the endpoints of one vL3 network share an address range."""

from nsm.apis._generated.ipam import (
    IpamBase,
    IpamStub,
    PrefixRequest,
    PrefixResponse,
    Type,
)

__all__ = [
    "IpamBase",
    "IpamStub",
    "PrefixRequest",
    "PrefixResponse",
    "Type",
]
