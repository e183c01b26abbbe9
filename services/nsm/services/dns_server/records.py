"""The records of a small DNS server: where the components of domains listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest
from nsm.chains.model.addresses import read_address
from nsm.services.dns.query import Answer, Query, failure

_EXAMPLE = "registry.nsm-system.my.domain: [192.0.2.1:5002]"


@dataclass(frozen=True)
class Records:
    """Places by name; each is an SRV record whose target is the name itself, and an address."""

    places: Mapping[dns.name.Name, tuple[Address, ...]]

    @classmethod
    def parse(cls, document: Any) -> Records:
        """From a YAML map of lists. Raises ValueError that names the invalid entry."""
        if not isinstance(document or {}, Mapping):
            raise ValueError(f"expected a map such as {_EXAMPLE}")
        return cls({_name(name): _places(name, listed) for name, listed in (document or {}).items()})

    def answer(self, query: Query, ttl: int) -> Answer:
        """The answer to a query; names that are not listed do not exist."""
        question, message = query.question, query.message
        places = self.places.get(question.name.canonicalize())
        if places is None or question.rdclass != dns.rdataclass.IN:
            return failure(message, dns.rcode.NXDOMAIN)
        answer = dns.message.make_response(message)
        answer.flags |= dns.flags.AA
        if texts := _texts(question, places):
            answer.answer.append(dns.rrset.from_text_list(question.name, ttl, "IN", question.rdtype, texts))
        return answer


def _texts(question: dns.rrset.RRset, places: tuple[Address, ...]) -> list[str]:
    match question.rdtype:
        case dns.rdatatype.SRV:
            ports = dict.fromkeys(place.port for place in places)
            return [f"0 0 {port} {question.name.to_text()}" for port in ports]
        case dns.rdatatype.A:
            return [host for place in places if ":" not in (host := place.host)]
        case dns.rdatatype.AAAA:
            return [host for place in places if ":" in (host := place.host)]
    return []


def _name(name: Any) -> dns.name.Name:
    try:
        return dns.name.from_text(name).canonicalize()
    except (dns.exception.DNSException, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{str(name)[:128]!r} is not a name of DNS: {error}; expected entries such as {_EXAMPLE}"
        ) from None


def _places(name: str, listed: Any) -> tuple[Address, ...]:
    found = []
    for text in listed if isinstance(listed, list) else [listed]:
        try:
            place = parse_address(text)
        except (InvalidRequest, TypeError) as error:
            raise ValueError(f"{name}: {error}") from None
        if read_address(place.host) is None:
            raise ValueError(f"{name}: {text!r} is not an IP address with a port; expected entries such as {_EXAMPLE}")
        found.append(place)
    return tuple(found)
