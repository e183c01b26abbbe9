"""The search domains from a workload's wires."""

from __future__ import annotations

from collections.abc import Iterable

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.model.dns import is_domain

MOST_DOMAINS = 32
"""The most domains: an endpoint must not cause more queries, and each domain may cause one."""


def searched(configs: Iterable[DnsConfig]) -> tuple[str, ...]:
    """The search domains of `configs` without duplicates, in order; invalid domain names are skipped."""
    domains = dict.fromkeys(d.lower().removesuffix(".") for config in configs for d in config.search_domains)
    return tuple(filter(is_domain, domains))[:MOST_DOMAINS]
