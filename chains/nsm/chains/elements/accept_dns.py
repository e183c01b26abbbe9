"""Limits the DNS servers and search domains that a client takes from endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.core import Call, Element, Handler
from nsm.chains.logs import log
from nsm.chains.model.addresses import read_address, read_interface
from nsm.chains.model.dns import is_domain
from nsm.chains.model.networks import EVERYTHING, Networks, host_fault

_ANY = "*"


@dataclass(frozen=True, slots=True)
class AcceptedDns:
    """Accepted servers, by networks, and search domains with their subdomains; no `domains` means any."""

    servers: Networks = EVERYTHING
    domains: tuple[str, ...] = ()

    @classmethod
    def parse(cls, items: Sequence[str]) -> AcceptedDns:
        """From prefixes and domains; ``*`` is everything. Raises ValueError for anything else."""
        if _ANY in items:
            return cls()
        prefixes = [item for item in items if read_interface(item) is not None]
        domains = [item.lower().strip(".") for item in items if item not in prefixes]
        for domain in domains:
            if not is_domain(domain):
                raise ValueError(
                    f"{domain[:64]!r} is neither a prefix nor a domain; expected 10.0.0.0/8,example.org or *"
                )
        return cls(Networks.parse(prefixes), tuple(domains) or ("",))

    def takes_server(self, text: str) -> bool:
        """Whether a server may be queried: never one of this machine itself, or an address of no host."""
        address = read_address(text)
        return address is not None and host_fault(address) is None and address in self.servers

    def takes_domain(self, text: str) -> bool:
        """Whether a domain may be searched."""
        domain = text.lower().strip(".")
        return not self.domains or any(domain == each or domain.endswith(f".{each}") for each in self.domains if each)


class AcceptDns(Element):
    """Keep only the accepted servers and search domains of an answer. Stands behind the element that uses them."""

    def __init__(self, accepted: AcceptedDns) -> None:
        self._accepted = accepted

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Drop the others; the wire works without them."""
        connection = await rest.request(call)
        context = connection.context.dns_context if connection.context is not None else None
        if context is None or not context.configs:
            return connection
        accepted = [kept for each in context.configs if (kept := self._kept(each)) is not None]
        if accepted != context.configs:
            log.warning("DNS of an endpoint is not accepted; NSM_ACCEPT_DNS lists what is", connection=connection.id)
        context.configs = accepted
        return connection

    def _kept(self, config: DnsConfig) -> DnsConfig | None:
        servers = list(filter(self._accepted.takes_server, config.dns_server_ips))
        domains = list(filter(self._accepted.takes_domain, config.search_domains))
        return DnsConfig(dns_server_ips=servers, search_domains=domains) if servers or domains else None
