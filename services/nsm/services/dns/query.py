"""A query on its way through a list of steps; like an element of a chain, each answers or calls the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

Answer = dns.message.Message


@dataclass(frozen=True, slots=True)
class Query:
    """A query, the servers to query, and the search domains."""

    message: dns.message.Message
    servers: tuple[str, ...] = ()
    """Addresses of servers."""
    search_domains: tuple[dns.name.Name, ...] = ()
    """Search domains for the name."""

    @property
    def question(self) -> dns.rrset.RRset:
        """The single question; call it behind `CheckMessage`."""
        return self.message.question[0]

    def asks(self, name: dns.name.Name, message_id: int) -> Query:
        """The same query for `name`, as our own message."""
        question, edns = self.question, min(self.message.edns, 0)
        message = dns.message.make_query(
            name,
            question.rdtype,
            question.rdclass,
            use_edns=edns,  # only if the client uses it, for servers without EDNS
            payload=_PAYLOAD,
            ednsflags=self.message.ednsflags & dns.flags.DO,
            id=message_id,
            flags=self.message.flags & _PASSED_ON,
        )
        return replace(self, message=message)


_PASSED_ON = dns.flags.RD | dns.flags.CD | dns.flags.AD
_PAYLOAD = 1232
"""The largest datagram, in bytes, that is not fragmented anywhere (DNS flag day 2020)."""

Rest = Callable[[Query], Awaitable[Answer]]


class Step(Protocol):
    """Answers a query, or calls the rest; an answer has the question and id of the query."""

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """The answer to `query`."""
        ...


def listed(steps: Sequence[Step]) -> Rest:
    """Chain the steps; a query that reaches the end is refused."""
    rest: Rest = _nobody
    for step in reversed(steps):
        rest = partial(step.answer, rest=rest)
    return rest


async def _nobody(query: Query) -> Answer:
    return failure(query.message, dns.rcode.REFUSED)


def failure(message: dns.message.Message, rcode: dns.rcode.Rcode) -> Answer:
    """An answer with only an error code."""
    answer = dns.message.make_response(message, recursion_available=True)
    answer.set_rcode(rcode)
    return answer


def as_answer_to(message: dns.message.Message, found: Answer) -> Answer:
    """`found` as an answer to `message`: with its id, its spelling of the name, and EDNS only if it uses EDNS."""
    answer = dns.message.make_response(message, recursion_available=True)
    answer.flags |= found.flags & _OF_DATA
    answer.set_rcode(found.rcode())
    answer.answer, answer.authority, answer.additional = found.answer, found.authority, found.additional
    return answer


_OF_DATA = dns.flags.AA | dns.flags.AD
