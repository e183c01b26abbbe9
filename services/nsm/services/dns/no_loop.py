"""Stops queries that loop back, when a server forwards queries to us that we sent to it."""

from __future__ import annotations

import secrets

import dns.name
import dns.rcode
import dns.rdatatype

from .query import Answer, Query, Rest, as_answer_to, failure

_Key = tuple[int, dns.name.Name, dns.rdatatype.RdataType]


class NoLoop:
    """Send each query with an unguessable id, and refuse incoming queries with such an id."""

    def __init__(self) -> None:
        self._sent: set[_Key] = set()

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Query with our own id."""
        name, kind = query.question.name, query.question.rdtype
        if (query.message.id, name, kind) in self._sent:
            return failure(query.message, dns.rcode.REFUSED)
        while (key := (secrets.randbits(16), name, kind)) in self._sent:
            pass
        self._sent.add(key)
        try:
            return as_answer_to(query.message, await rest(query.asks(name, key[0])))
        finally:
            self._sent.discard(key)
