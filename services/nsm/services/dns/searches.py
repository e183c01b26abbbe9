"""Looks up a name as it is, then in each search domain that is not in a resolv.conf (see `LocalResolver`)."""

from __future__ import annotations

import dns.flags
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from .query import Answer, Query, Rest, as_answer_to

_ARPA = dns.name.from_text("arpa.")
_LARGEST_TTL = 2**31 - 1


class Searches:
    """Try the name as it is, then in each search domain; the first that exists counts.

    A result in a search domain is returned as an alias (CNAME) for the requested name, because programs expect to see
    the full name. If nothing is found, the answer for the name as it is is returned.
    """

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Search."""
        first = await rest(query)
        if first.rcode() == dns.rcode.NOERROR or query.question.name.is_subdomain(_ARPA):
            return first
        for name in _names(query):
            found = await rest(query.asks(name, query.message.id))
            if found.rcode() == dns.rcode.NOERROR:
                return _as_alias(query, name, found)
        return first


def _names(query: Query) -> list[dns.name.Name]:
    name = query.question.name.relativize(dns.name.root)
    if not name.labels:
        return []
    names = []
    for domain in query.search_domains:
        try:
            names.append(name.concatenate(domain))
        except dns.name.NameTooLong:
            continue
    return names


def _as_alias(query: Query, name: dns.name.Name, found: Answer) -> Answer:
    ttl = min((rrset.ttl for rrset in (*found.answer, *found.authority)), default=0)
    question = query.question
    alias = dns.rrset.from_text(
        question.name, min(ttl, _LARGEST_TTL), dns.rdataclass.IN, dns.rdatatype.CNAME, name.to_text()
    )
    answer = as_answer_to(query.message, found)
    answer.answer = [alias, *found.answer]
    answer.flags &= ~dns.flags.AD  # the alias is not signed
    return answer
