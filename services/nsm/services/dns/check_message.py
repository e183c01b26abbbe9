"""Only what is a plain question goes on."""

from __future__ import annotations

import dns.flags
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from .query import Answer, Query, Rest, failure

_TRANSFERS = {dns.rdatatype.AXFR, dns.rdatatype.IXFR}


class CheckMessage:
    """Refuse what is no question, more than one, or the wish for a whole zone."""

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Look at the message."""
        message = query.message
        if message.opcode() != dns.opcode.QUERY:
            return failure(message, dns.rcode.NOTIMP)
        if len(message.question) != 1:
            return failure(message, dns.rcode.FORMERR)
        if query.question.rdtype in _TRANSFERS or query.question.rdclass != dns.rdataclass.IN:
            return failure(message, dns.rcode.REFUSED)
        return await rest(query)
