"""Accepts only plain queries."""

from __future__ import annotations

import dns.flags
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from .query import Answer, Query, Rest, failure

_TRANSFERS = {dns.rdatatype.AXFR, dns.rdatatype.IXFR}


class CheckMessage:
    """Refuse messages that are not queries, have several questions, or request a zone transfer."""

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Check the message."""
        message = query.message
        if message.opcode() != dns.opcode.QUERY:
            return failure(message, dns.rcode.NOTIMP)
        if len(message.question) != 1:
            return failure(message, dns.rcode.FORMERR)
        if query.question.rdtype in _TRANSFERS or query.question.rdclass != dns.rdataclass.IN:
            return failure(message, dns.rcode.REFUSED)
        return await rest(query)
