"""What the wires of a workload say of DNS, and what the workload was told before them."""

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
"""An endpoint is not trusted to name more: each is asked each time."""


class UseConfigs:
    """Ask the servers, and search the domains, of all configurations in force; `own` is an address never to ask."""

    def __init__(self, configs: Mapping[str, Sequence[DnsConfig]], own: str) -> None:
        self._configs, self._own = configs, own

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Collect them anew each time: they come and go with connections."""
        servers, domains = collected(self._configs.values(), self._own)
        return await rest(replace(query, servers=servers, search_domains=domains))


def collected(configs: Iterable[Sequence[DnsConfig]], own: str) -> tuple[tuple[str, ...], tuple[dns.name.Name, ...]]:
    """Servers and search domains, each once, in the order of the connections; what is none is left out."""
    flat = [config for several in configs for config in several]
    servers = dict.fromkeys(s for config in flat for s in config.dns_server_ips if is_server(s) and s != own)
    names = [name for domain in searched(flat) if (name := _name(domain)) is not None]
    return tuple(servers)[:MOST_SERVERS], tuple(names)


def _name(domain: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(domain)
    except dns.exception.DNSException:
        return None
