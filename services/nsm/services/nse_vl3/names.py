"""The DNS server of an endpoint: its clients by name, and those of other endpoints by asking their servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import dns.flags
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from nsm.chains.core import Backoff, Tasks
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address
from nsm.services.dns.check_message import CheckMessage
from nsm.services.dns.exchange import exchange
from nsm.services.dns.fanout import Ask, Fanout
from nsm.services.dns.no_loop import NoLoop
from nsm.services.dns.query import Answer, Query, Rest, failure, listed
from nsm.services.dns.server import listening

K = TypeVar("K")
V = TypeVar("V")

TTL = 5
"""Seconds for which others may keep an answer: a client may move to another endpoint, where it has another address."""
PORT = 53
_ITSELF = ""
"""In the place of a connection's id."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Client:
    names: tuple[dns.name.Name, ...]
    addresses: tuple[Address, ...]


class Names:
    """The names and addresses of clients, and the servers of other endpoints, by connection (see `Vl3Names`)."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._servers: dict[str, tuple[str, ...]] = {}
        self._by_name: dict[dns.name.Name, dict[Address, int]] = {}
        """The addresses of each name, with the number of connections that have both."""
        self._by_address: dict[dns.name.Name, dict[dns.name.Name, int]] = {}
        """Likewise the names of each address, which is itself a name in ``in-addr.arpa`` or ``ip6.arpa``."""

    def __len__(self) -> int:
        """The number of names."""
        return len(self._by_name)

    def set(self, connection_id: str, names: Sequence[str], addresses: Sequence[Address]) -> None:
        """See `Vl3Names`."""
        client = _Client(tuple(dns.name.from_text(f"{name}.").canonicalize() for name in names), tuple(addresses))
        if self._clients.get(connection_id) != client:
            self._remove(connection_id)
            self._clients[connection_id] = client
            self._count(client, 1)

    def learn(self, connection_id: str, servers: Sequence[Address]) -> None:
        """See `Vl3Names`."""
        self._servers[connection_id] = tuple(map(str, servers))

    def forget(self, connection_id: str) -> None:
        """See `Vl3Names`."""
        self._servers.pop(connection_id, None)
        self._remove(connection_id)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of other endpoints."""
        return tuple(dict.fromkeys(server for servers in self._servers.values() for server in servers))

    def find(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[str] | None:
        """The values of a name; none if it has only others. None if there is no such name here."""
        if (addresses := self._by_name.get(name)) is not None:
            version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(kind)
            return [str(address) for address in addresses if address.version == version]
        if (names := self._by_address.get(name)) is not None:
            return [each.to_text() for each in names] if kind == dns.rdatatype.PTR else []
        return None

    def _remove(self, connection_id: str) -> None:
        if (client := self._clients.pop(connection_id, None)) is not None:
            self._count(client, -1)

    def _count(self, client: _Client, by: int) -> None:
        for name in client.names:
            for address in client.addresses:
                _add(self._by_name, name, address, by)
                _add(self._by_address, dns.reversename.from_address(str(address)), name, by)


def _add(counts: dict[K, dict[V, int]], key: K, value: V, by: int) -> None:
    of_key = counts.setdefault(key, {})
    of_key[value] = of_key.get(value, 0) + by
    if not of_key[value]:
        del of_key[value]
    if not of_key:
        del counts[key]


class OwnNames:
    """Answer for the clients of this endpoint, with authority."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Answer, or ask others."""
        question = query.question
        found = self._names.find(question.name.canonicalize(), question.rdtype)
        if found is None:
            return await rest(query)
        answer = failure(query.message, dns.rcode.NOERROR)
        answer.flags |= dns.flags.AA
        if found:
            rrset = dns.rrset.from_text(question.name, TTL, dns.rdataclass.IN, question.rdtype, *found)
            answer.answer.append(rrset)
        return answer


class AskOthers:
    """Ask the servers of other endpoints; what comes from one of them, or wants no recursion, is not passed on."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def answer(self, query: Query, rest: Rest) -> Answer:
        """Pass on the query, without recursion."""
        servers = self._names.servers
        if not servers or not query.message.flags & dns.flags.RD:
            return failure(query.message, dns.rcode.NXDOMAIN)
        message = query.asks(query.question.name, query.message.id).message
        message.flags &= ~dns.flags.RD
        found = await rest(replace(query, message=message, servers=servers))
        found.flags |= dns.flags.RD
        return found


def answers(names: Names, ask: Ask = exchange) -> Rest:
    """Answers queries by `names`."""
    return listed([CheckMessage(), OwnNames(names), AskOthers(names), NoLoop(), Fanout(ask)])


class NameServers:
    """A DNS server on each of the endpoint's own addresses, which may change; `own` are the names of these."""

    def __init__(self, network: Vl3Network, names: Names, tasks: Tasks, own: Sequence[str] = ()) -> None:
        self._network, self._answer, self._tasks = network, answers(names), tasks
        self._names, self._own = names, tuple(own)
        self._serving: dict[Address, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Serve on the addresses that there are now, and no others."""
        own = self._network.own()
        self._names.set(_ITSELF, self._own, own)
        for address in [each for each in self._serving if each not in own]:
            self._serving.pop(address).cancel()
        for address in own:
            if address not in self._serving:
                self._serving[address] = self._tasks.spawn(self._serve(address), name=f"DNS on {address}")

    async def _serve(self, address: Address) -> None:
        pauses, is_told = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), False
        while True:
            try:
                async with listening(str(address), PORT, self._answer):
                    await asyncio.Event().wait()
            except OSError as error:
                tell = log.debug if is_told else log.warning
                tell("cannot serve names", address=f"{address}:{PORT}", error=error.strerror or str(error))
                is_told = True
            await asyncio.sleep(pauses.next())
