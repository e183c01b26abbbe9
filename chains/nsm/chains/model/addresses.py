"""Parsing of addresses and prefixes in messages: only forms that every program of the mesh accepts.

Python accepts more than Go does (netmasks, zones, a prefix without a length); text that only one side of a wire can
parse must count as missing on both. An IPv4-mapped IPv6 address counts as an IPv4 address.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST = 64
"""More characters than any address with a prefix length has; longer text is neither parsed nor cached."""
_LENGTH = re.compile(r"0*(?P<length>[0-9]{1,3})")


def read_address(text: str) -> Address | None:
    """The address in `text`, or None."""
    return _read_address(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _read_address(text: str) -> Address | None:
    address = _as_written(text)
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def read_interface(text: str) -> Interface | None:
    """The address with prefix length in `text` (``10.0.0.1/24``), or None."""
    return _read_interface(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)  # each refresh of a wire repeats the same texts
def _read_interface(text: str) -> Interface | None:
    address, _, rest = text.partition("/")
    ip, length = _as_written(address), _LENGTH.fullmatch(rest)
    if ip is None or length is None or int(length["length"]) > ip.max_prefixlen:
        return None
    return _interface(ip, int(length["length"]))


def _as_written(text: str) -> Address | None:
    if "%" in text:
        return None
    try:
        return ipaddress.IPv6Address(text) if ":" in text else ipaddress.IPv4Address(text)
    except ValueError:
        return None


def _interface(ip: Address, length: int) -> Interface:
    if isinstance(ip, ipaddress.IPv4Address):
        return ipaddress.IPv4Interface((int(ip), length))
    if ip.ipv4_mapped is not None:
        return ipaddress.IPv4Interface((int(ip.ipv4_mapped), max(0, length - 96)))
    return ipaddress.IPv6Interface((int(ip), length))
