"""URLs to listen at and to dial; and which of them others can dial."""

from __future__ import annotations

import ipaddress
import socket

from nsm.chains.config.address import Address, parse_address

__all__ = ["Address", "parse_address", "publishable"]


def publishable(url: str) -> str:
    """`url` as other nodes can dial it: an address of this machine takes the place of a missing host.

    The first IPv4 address that is not of the loopback interface, else the first global IPv6 one.
    """
    address = parse_address(url)
    if address.is_unix or (address.host and not _is_unspecified(address.host)):
        return url
    return str(Address(host=_own_address(), port=address.port))


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _own_address() -> str:
    """The address that packets to elsewhere would leave from; nothing is sent to find out."""
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return "127.0.0.1"
