"""Finds the registry and the proxy of other domains in DNS.

A component of a domain is an SRV record of a plain name, such as ``registry.nsm-system.my.domain``, with the addresses
of the same name, as CoreDNS's plugin k8s_external answers for a service. If the name itself has no address, those of
the record's target count. A domain that is a URL, ``tcp://192.0.2.1:5002``, is not looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from nsm.chains.config.address import Address
from nsm.chains.core import InvalidRequest, MeshError, NotFound, Unavailable
from nsm.chains.model.domains import literal_url
from nsm.chains.registry.resolve_domain import Located
from nsm.services.dns.exchange import exchange

from .servers import Server

_SHORTEST, _LONGEST = 1.0, 300.0
"""Seconds for which an answer counts, whatever its TTL; a failure counts for the shortest time."""
_PATIENCE = 4.0
"""Seconds that one name server may take for one question, over TCP if UDP has no answer."""
_MOST_NAMES = 4096
_MOST_URLS = 16
"""What one answer may bring: records whose targets are looked up, and URLs that are tried."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The result of a look-up, and until when it counts."""

    found: Located | MeshError
    until: float


@dataclass(frozen=True, slots=True)
class _Records:
    """Records of one name and type; `ttl` in seconds."""

    rrset: dns.rrset.RRset | None
    ttl: float


class DnsResolver:
    """Resolves domains by `servers`, which returns the current name servers, tried in turn; see `Resolver`.

    Answers are kept for as long as their TTL says. Concurrent calls for one name share a look-up. An answer counts only
    if it came from the server that was asked, to that very question.
    """

    def __init__(self, servers: Callable[[], Sequence[Server]]) -> None:
        self._servers = servers
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, asyncio.Task[Located]] = {}

    async def locate(self, component: str, domain: str) -> Located:
        """Where a component of a domain is. Raises `NotFound` without a record, `Unavailable` if no server answers."""
        if (url := literal_url(domain)) is not None:
            return Located((url,), float("inf"))
        name = f"{component}.{domain.rstrip('.')}.".lower()
        known = self._known.get(name)
        if known is None or known.until <= _now():
            known = await self._look_up(name, domain)
        if isinstance(known.found, MeshError):
            raise type(known.found)(known.found.detail)
        return known.found

    def forget(self, component: str, domain: str) -> None:
        """Look it up anew for the next call."""
        self._known.pop(f"{component}.{domain.rstrip('.')}.".lower(), None)

    async def _look_up(self, name: str, domain: str) -> _Known:
        looking = self._looking.get(name)
        if looking is None:
            looking = self._looking[name] = asyncio.ensure_future(self._resolve(name, domain))
            looking.add_done_callback(lambda _: self._looking.pop(name, None))
        try:
            found = await asyncio.shield(looking)
            known = _Known(found, found.until)
        except MeshError as error:
            known = _Known(error, _now() + _SHORTEST)
        self._known.pop(name, None)
        self._known[name] = known
        while len(self._known) > _MOST_NAMES:
            del self._known[next(iter(self._known))]
        return known

    async def _resolve(self, text: str, domain: str) -> Located:
        try:
            name = dns.name.from_text(text)
        except (dns.exception.DNSException, ValueError) as error:
            raise InvalidRequest(f"domain {domain!r} is not a name of DNS: {error}") from None
        services, *direct = await asyncio.gather(
            self._ask(name, dns.rdatatype.SRV, domain),
            self._ask(name, dns.rdatatype.A, domain),
            self._ask(name, dns.rdatatype.AAAA, domain),
        )
        if services.rrset is None:
            raise NotFound(
                f"domain {domain!r} has no record: DNS has no SRV record of {text}",
                remedy="check the domain's name in the client's list; the DNS has to serve that record",
            )
        urls, ttls = [], [services.ttl, *(each.ttl for each in direct if each.rrset is not None)]
        addresses = _addresses(direct)
        for record in sorted(services.rrset, key=_rank)[:_MOST_URLS]:
            there = addresses
            if not there:
                targets = await asyncio.gather(
                    self._ask(record.target, dns.rdatatype.A, domain),
                    self._ask(record.target, dns.rdatatype.AAAA, domain),
                )
                there = _addresses(targets)
                ttls += [each.ttl for each in targets if each.rrset is not None]
            urls += [str(Address(host=address, port=record.port)) for address in there]
        if not urls:
            raise NotFound(
                f"domain {domain!r} has a record without an address: {text} has neither A nor AAAA",
                remedy="add an address record of the SRV record's target to the DNS",
            )
        lifetime = min(max(min(ttls), _SHORTEST), _LONGEST)
        return Located(tuple(dict.fromkeys(urls))[:_MOST_URLS], _now() + lifetime)

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, domain: str) -> _Records:
        reasons, servers = [], self._servers()
        for host, port in servers:
            question = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD)
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer = await exchange(question, host, port)
                if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return _records(answer)
                reasons.append(f"{host}: {dns.rcode.to_text(answer.rcode())}")
            except TimeoutError:
                reasons.append(f"{host}: no answer")
            except (OSError, ValueError, dns.exception.DNSException) as error:
                reasons.append(f"{host}: {error}")
        told = "; ".join(reasons) or "no name server is configured (NSM_DNS_SERVERS, /etc/resolv.conf)"
        remedy = "check that the proxy reaches its name servers (NSM_DNS_SERVERS)"
        raise Unavailable(f"domain {domain!r} cannot be looked up: {told}", remedy=remedy)


_PAYLOAD = 1232
"""The largest datagram, in bytes, that is not fragmented anywhere (DNS flag day 2020)."""


def _records(answer: dns.message.Message) -> _Records:
    """The records that an answer has for its own question, by way of CNAMEs; records of other names do not count."""
    if answer.rcode() == dns.rcode.NXDOMAIN:
        return _Records(None, _SHORTEST)
    assert isinstance(answer, dns.message.QueryMessage)
    chained = answer.resolve_chaining()
    return _Records(chained.answer, float(chained.minimum_ttl))


def _addresses(found: Iterable[_Records]) -> list[str]:
    return [record.address for each in found if each.rrset is not None for record in each.rrset]


def _rank(record: object) -> tuple[int, int, str, int]:
    """By priority, then by weight: the choice is deterministic, so that all calls go to the same place."""
    return record.priority, -record.weight, record.target.to_text(), record.port  # type: ignore[attr-defined]


def _now() -> float:
    return asyncio.get_running_loop().time()
