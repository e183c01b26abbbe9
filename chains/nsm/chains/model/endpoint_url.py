"""The URLs under which endpoints may be registered: descriptors, unix sockets and TCP addresses only."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import lru_cache

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_DESCRIPTOR = re.compile(r"inode://[0-9]{1,20}/[0-9]{1,20}")
_UNIX = re.compile(r"unix://(/[^\x00-\x20\x7f?#%]{1,107})")
_TCP = re.compile(
    r"tcp://(?:\[(?P<bracketed>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))"
    r":(?P<port>[0-9]{1,5})"
)

_REMEMBERED = 1_024


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """An endpoint's address: a descriptor that is passed along, the `path` of a unix socket, or a `host` on TCP."""

    is_descriptor: bool = False
    path: str = ""
    host: IpAddress | str = ""
    """An address, or the name of a host."""


@lru_cache(maxsize=_REMEMBERED)
def read_endpoint_url(url: str) -> EndpointUrl | None:
    """The address in `url`; None for any other kind of URL, and for a malformed one."""
    if (tcp := _TCP.fullmatch(url)) is not None:
        host = _host(tcp["bracketed"], tcp["host"])
        return None if host is None or int(tcp["port"]) > 65535 else EndpointUrl(host=host)
    if (unix := _UNIX.fullmatch(url)) is not None:
        return EndpointUrl(path=unix[1])
    return EndpointUrl(is_descriptor=True) if _DESCRIPTOR.fullmatch(url) else None


@lru_cache(maxsize=_REMEMBERED)
def address_in(text: str) -> IpAddress | None:
    """The IP address in `text`; an IPv4-mapped IPv6 address is returned as IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_nowhere(address: IpAddress) -> bool:
    """Whether `address` has no meaning on another host: unspecified, multicast, broadcast, link-local."""
    return (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or (address.version == 4 and (address.is_reserved or address in _THIS_NETWORK))
    )


def is_of_this_host(address: IpAddress) -> bool:
    """Whether the host of this process has `address`: whether a socket can be bound to it."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


def _host(bracketed: str | None, host: str | None) -> IpAddress | str | None:
    if bracketed:
        return address_in(bracketed)
    assert host is not None
    if (address := address_in(host)) is not None:
        return address
    last = host.rstrip(".").rpartition(".")[2]
    return (
        None if last.isdigit() or last[:2].lower() == "0x" else host
    )  # resolvers treat 127.1 and 0x7f000001 as addresses
