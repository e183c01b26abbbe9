"""The DNS configuration of a wire: server addresses, and search domains."""

from __future__ import annotations

import ipaddress
import json
import re

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.reading import Field, read_json

_SERVERS, _DOMAINS = "dns_server_ips", "search_domains"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)
_LONGEST_NAME, _LONGEST_ADDRESS = 253, 64
_EXAMPLE = '[{"dns_server_ips": ["10.0.0.53"], "search_domains": ["example.org"]}]'


def parse_dns_configs(value: str) -> tuple[DnsConfig, ...]:
    """Read a JSON array of objects with the keys `dns_server_ips` and `search_domains`, either of which may be missing.

    Raises ValueError with what is wrong and what to write instead.
    """
    try:
        read = read_json(value or "[]")
    except ValueError as error:
        raise ValueError(f"{error}; expected an array such as {_EXAMPLE}") from None
    if not isinstance(read, list):
        raise ValueError(f"expected an array such as {_EXAMPLE}")
    return tuple(_config(item) for item in Field(read, "").each())


def _config(item: Field) -> DnsConfig:
    if not isinstance(item.value, dict) or not item.value:
        raise ValueError(f"{json.dumps(item.value)} is not a DNS configuration; expected an array such as {_EXAMPLE}")
    fields = item.fields({_SERVERS, _DOMAINS}, "a DNS configuration")
    servers, domains = fields[_SERVERS].texts(), fields[_DOMAINS].texts()
    for server in servers:
        if not is_server(server):
            raise ValueError(f"{server!r} in {_SERVERS} is not an IP address")
    for domain in domains:
        if not is_domain(domain):
            raise ValueError(f"{domain!r} in {_DOMAINS} is not a domain name")
    return DnsConfig(dns_server_ips=servers, search_domains=domains)


def is_server(text: str) -> bool:
    """Whether `text` is a valid address of a server; a link-local one may have a zone."""
    if len(text) > _LONGEST_ADDRESS:
        return False
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast) and text.isascii() and text.isprintable()


def is_domain(text: str) -> bool:
    """Whether `text` is a domain name, with or without a trailing dot."""
    name = text.removesuffix(".")
    return len(name) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in name.split("."))
