"""The DNS configurations of a workload's wires, and the workload's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import dns.exception
import dns.name

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.model.dns import is_server

from .domains import searched
from .query import Answer, Query, Rest

MOST_SERVERS = 16
"""The most servers: an endpoint must not cause more queries, since each query goes to all of them."""


class UseConfigs:
    """Use the servers and search domains of all configurations; `own` is our address, which is never queried."""

    def __init__(self, configs: Mapping[str, Sequence[DnsConfig]], own: str) -> None:
        self._configs, self._own = configs, own

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Collect the configurations for each query: they change with connections."""
        servers, domains = collected(self._configs.values(), self._own)
        return await rest(replace(query, servers=servers, search_domains=domains))


def collected(configs: Iterable[Sequence[DnsConfig]], own: str) -> tuple[tuple[str, ...], tuple[dns.name.Name, ...]]:
    """Servers and search domains without duplicates, in the order of connections; invalid ones are skipped."""
    flat = [config for several in configs for config in several]
    servers = dict.fromkeys(s for config in flat for s in config.dns_server_ips if is_server(s) and s != own)
    names = [name for domain in searched(flat) if (name := _name(domain)) is not None]
    return tuple(servers)[:MOST_SERVERS], tuple(names)


def _name(domain: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(domain)
    except dns.exception.DNSException:
        return None
