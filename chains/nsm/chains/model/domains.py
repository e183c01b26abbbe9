"""Names of services and endpoints in other domains: ``service@domain``.

A domain is the name under which DNS has the addresses of its registry and its proxy, or the URL of a registry,
``tcp://192.0.2.1:5002``. Inside a domain names have no ``@``; another domain writes its own name behind them.
"""

from __future__ import annotations

import re

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import InvalidRequest

from .addresses import read_address

Record = NetworkService | NetworkServiceEndpoint

AT = "@"
_DNS_NAME = re.compile(r"(?=.{1,230}\.?$)(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
"""Short enough for the name of a service in front of it."""
_LITERAL = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<v4>[0-9.]{7,15})):(?P<port>[0-9]{1,5})")
_SHOWN = 128


def split(name: str) -> tuple[str, str]:
    """The name inside its domain, and the domain; an empty domain is one's own."""
    target, _, domain = name.partition(AT)
    return target, domain


def join(target: str, domain: str) -> str:
    """The name that another domain uses."""
    return f"{target}{AT}{domain}" if domain else target


def is_elsewhere(record: Record) -> bool:
    """Whether a record, or a query, is of another domain: one of its names has a domain."""
    if AT in record.name:
        return True
    return isinstance(record, NetworkServiceEndpoint) and any(AT in name for name in record.network_service_names)


def domain_of(record: Record) -> str:
    """The domain of a record or a query. Raises `InvalidRequest` if its names have none, several, or an invalid one."""
    names = [record.name, *(record.network_service_names if isinstance(record, NetworkServiceEndpoint) else ())]
    domains = {split(name)[1]: name for name in names if AT in name}
    if len(domains) > 1:
        raise InvalidRequest(f"the names are of several domains: {', '.join(map(_shown, domains.values()))}")
    if not domains:
        raise InvalidRequest(f"{_shown(record.name)} has no domain; expected a name such as service@my.domain")
    (domain, name), *_ = domains.items()
    check_domain(domain, name)
    return domain


def check_domain(domain: str, name: str) -> None:
    """Raise `InvalidRequest` that shows `name` if its `domain` is neither a DNS name nor the URL of a registry."""
    if AT in domain:
        raise InvalidRequest(f"{_shown(name)} has more than one @; expected service@domain")
    if literal_url(domain) is None and not _DNS_NAME.fullmatch(domain):
        raise InvalidRequest(
            f"{_shown(name)} names no domain: expected a DNS name behind the @, such as my.domain, or tcp://ip:port"
        )


def literal_url(domain: str) -> str | None:
    """The URL that a domain is; None for a name."""
    found = _LITERAL.fullmatch(domain)
    if found is None or read_address(found["v6"] or found["v4"]) is None or not 0 < int(found["port"]) <= 65535:
        return None
    return domain


def leave(record: Record) -> None:
    """Give a record the names that it has inside its domain, in place."""
    record.name = split(record.name)[0]
    if isinstance(record, NetworkServiceEndpoint):
        record.network_service_names = [split(name)[0] for name in record.network_service_names]
        record.network_service_labels = {
            split(name)[0]: labels for name, labels in record.network_service_labels.items()
        }


def enter(record: Record, domain: str) -> None:
    """Give a record of `domain` the names that other domains use, in place."""
    record.name = join(record.name, domain)
    if isinstance(record, NetworkServiceEndpoint):
        record.network_service_names = [join(name, domain) for name in record.network_service_names]
        record.network_service_labels = {
            join(name, domain): labels for name, labels in record.network_service_labels.items()
        }


def _shown(name: str) -> str:
    return repr(name[:_SHOWN])
