"""Caches answers while they are valid, and merges identical concurrent queries."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset

from .query import Answer, Query, Rest, as_answer_to

SIZE = 1024
"""The number of cached answers; the least recently used one is dropped first."""
LONGEST, LONGEST_NEGATIVE = 3600.0, 30.0
"""The longest time for positive and for negative answers, in seconds."""

_Key = tuple[dns.name.Name, dns.rdatatype.RdataType, int, bool, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    since: float
    until: float


class Cache:
    """Cache answers until their TTL expires, counting it down; negative answers for as long as their zone specifies.

    Answers are cached per set of servers. A query that is already in progress is not sent again: all callers share the
    answer, so that a query that loops between two servers does not multiply.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._asking: dict[_Key, asyncio.Future[Answer | None]] = {}
        """Queries in progress; None if the caller that sent it has gone, so that another one must send it."""

    def __len__(self) -> int:
        return len(self._entries)

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Answer from the cache, or from the rest."""
        key, now = _key(query), asyncio.get_running_loop().time()
        entry = self._entries.get(key)
        if entry is not None and now < entry.until:
            self._entries.move_to_end(key)
            return _aged(query, entry.answer, int(now - entry.since))
        return _aged(query, await self._asked(key, query, rest), 0)

    async def _asked(self, key: _Key, query: Query, rest: Rest) -> Answer:
        """Send the query, or wait for one in progress; a caller that leaves does not cancel it for others."""
        while (asking := self._asking.get(key)) is not None:
            if (answer := await asyncio.shield(asking)) is not None:
                return answer
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        answer = None
        try:
            answer = await rest(query)
        finally:
            del self._asking[key]
            asking.set_result(answer)
        self._keep(key, answer)
        return answer

    def _keep(self, key: _Key, answer: Answer) -> None:
        lifetime = lifetime_of(answer)
        self._entries.pop(key, None)
        if lifetime > 0:
            now = asyncio.get_running_loop().time()
            self._entries[key] = _Entry(answer, now, now + lifetime)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)


def _key(query: Query) -> _Key:
    flags = query.message.flags & (dns.flags.CD | dns.flags.RD)
    secure = bool(query.message.ednsflags & dns.flags.DO)
    return query.question.name, query.question.rdtype, flags, secure, query.servers


def lifetime_of(answer: Answer) -> float:
    """Seconds for which an answer may be cached (RFC 2308 for negative ones); 0: not at all."""
    if answer.flags & dns.flags.TC or answer.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return 0
    if answer.answer and answer.rcode() == dns.rcode.NOERROR:
        return min(LONGEST, *(rrset.ttl for rrset in answer.answer))
    return min((min(rrset.ttl, _minimum(rrset), LONGEST_NEGATIVE) for rrset in _zones(answer)), default=0)


def _zones(answer: Answer) -> Sequence[dns.rrset.RRset]:
    return [rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA]


def _minimum(rrset: dns.rrset.RRset) -> int:
    return min(record.minimum for record in rrset if isinstance(record, dns.rdtypes.ANY.SOA.SOA))


def _aged(query: Query, answer: Answer, seconds: int) -> Answer:
    """A copy of a cached answer with the remaining TTLs."""
    aged = as_answer_to(query.message, answer)
    aged.answer, aged.authority, aged.additional = (
        [_with_ttl(rrset, max(0, rrset.ttl - seconds)) for rrset in section]
        for section in (answer.answer, answer.authority, answer.additional)
    )
    return aged


def _with_ttl(rrset: dns.rrset.RRset, ttl: int) -> dns.rrset.RRset:
    copy: dns.rrset.RRset = rrset.copy()  # type: ignore[no-untyped-call]
    copy.ttl = ttl
    return copy
