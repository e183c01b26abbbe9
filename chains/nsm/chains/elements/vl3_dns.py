"""DNS of a vL3 network: a name for each client, served by the endpoint that it is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import DnsConfig, DnsContext
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model.addresses import Address, read_address
from nsm.chains.model.ipcontext import context_of, interfaces, ip_context_of
from nsm.chains.model.vl3 import names_of, search_domains

from .vl3_ipam import Vl3Peers
from .vl3_network import Vl3Network


class Vl3Names(Protocol):
    """The names of this endpoint's clients, and the servers of other endpoints, by connection."""

    def set(self, connection_id: str, names: Sequence[str], addresses: Sequence[Address]) -> None:
        """A client is called `names`, and has `addresses`, instead of what it had before."""
        ...

    def learn(self, connection_id: str, servers: Sequence[Address]) -> None:
        """Another endpoint's servers."""
        ...

    def forget(self, connection_id: str) -> None:
        """A connection is gone."""
        ...


class Vl3DnsServer(Element):
    """Name each client by `templates`, and have it use this endpoint's DNS server; learn the servers of endpoints.

    Stands before `Vl3Ipam`: it uses the addresses in the answer.
    """

    def __init__(self, network: Vl3Network, peers: Vl3Peers, names: Vl3Names, templates: Sequence[str]) -> None:
        self._network, self._peers, self._names, self._templates = network, peers, names, tuple(templates)
        self._known: Key[bool] = Key("known to DNS")
        self._is_endpoint: Key[bool] = Key("is another endpoint's")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Name the client of the answer."""
        store, asked = call.live, _configs(call.connection)
        connection = await rest.request(call)
        is_endpoint = store.get(self._is_endpoint)
        if is_endpoint is None:
            is_endpoint = store.put(self._is_endpoint, bool(await self._peers.endpoint_of(call)))
        if not store.get(self._known):
            store.put(self._known, True)
            store.on_end(partial(self._names.forget, store.connection_id))
        names: list[str] = []
        if is_endpoint:
            self._names.learn(store.connection_id, _servers_of_others(asked, self._network))
        else:
            names = names_of(connection, self._templates)
            addresses = [each.ip for each in interfaces(ip_context_of(connection).src_ip_addrs)]
            self._names.set(store.connection_id, names, addresses)
        _use_ours(connection, self._network, search_domains(names))
        return connection


class Vl3DnsClient(Element):
    """Tell another endpoint the DNS servers of this one, and learn its servers."""

    def __init__(self, network: Vl3Network, names: Vl3Names) -> None:
        self._network, self._names = network, names
        self._known: Key[bool] = Key("known to DNS")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Send ours, and learn from the answer."""
        store = call.live
        context_of(call.connection).dns_context = DnsContext(configs=[_ours(self._network, ())])
        connection = await rest.request(call)
        if not store.get(self._known):
            store.put(self._known, True)
            store.on_end(partial(self._names.forget, store.connection_id))
        self._names.learn(store.connection_id, _servers_of_others(_configs(connection), self._network))
        return connection


def _ours(network: Vl3Network, domains: Sequence[str]) -> DnsConfig:
    return DnsConfig(dns_server_ips=[str(address) for address in network.own()], search_domains=list(domains))


def _use_ours(connection: Connection, network: Vl3Network, domains: Sequence[str]) -> None:
    """Put our own configuration in the place of any of this network's: of another endpoint, or of a former prefix."""
    context = context_of(connection)
    present = context.dns_context.configs if context.dns_context is not None else []
    foreign = [each for each in present if not any(_is_of(text, network) for text in each.dns_server_ips)]
    context.dns_context = DnsContext(configs=[*foreign, _ours(network, domains)])


def _servers_of_others(configs: Sequence[DnsConfig], network: Vl3Network) -> list[Address]:
    """The servers in the whole network that are not our own."""
    own = network.own()
    read = (read_address(text) for config in configs for text in config.dns_server_ips)
    return list(dict.fromkeys(each for each in read if each is not None and each in network.whole and each not in own))


def _is_of(text: str, network: Vl3Network) -> bool:
    address = read_address(text)
    return address is not None and address in network.whole


def _configs(connection: Connection) -> list[DnsConfig]:
    context = connection.context.dns_context if connection.context is not None else None
    return [codec.clone(each) for each in context.configs] if context is not None else []
