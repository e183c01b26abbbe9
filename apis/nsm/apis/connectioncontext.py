"""What a wire carries: addresses, routes, DNS, link settings."""

from nsm.apis._generated.connectioncontext import (
    ConnectionContext,
    DnsConfig,
    DnsContext,
    EthernetContext,
    ExtraPrefixRequest,
    IpContext,
    IpFamily,
    IpFamilyFamily,
    IpNeighbor,
    PolicyRoute,
    Route,
)

__all__ = [
    "ConnectionContext",
    "DnsConfig",
    "DnsContext",
    "EthernetContext",
    "ExtraPrefixRequest",
    "IpContext",
    "IpFamily",
    "IpFamilyFamily",
    "IpNeighbor",
    "PolicyRoute",
    "Route",
]
