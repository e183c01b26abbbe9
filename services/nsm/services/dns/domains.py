"""In which domains the names of a workload are searched because of its wires."""

from __future__ import annotations

from collections.abc import Iterable

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.model.dns import is_domain

MOST_DOMAINS = 32
"""An endpoint is not trusted to name more: each may be a question."""


def searched(configs: Iterable[DnsConfig]) -> tuple[str, ...]:
    """The search domains of `configs`, each once, in their order; what is not a domain name is left out."""
    domains = dict.fromkeys(d.lower().removesuffix(".") for config in configs for d in config.search_domains)
    return tuple(filter(is_domain, domains))[:MOST_DOMAINS]
