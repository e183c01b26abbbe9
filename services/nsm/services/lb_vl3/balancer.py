"""Balances connections in the kernel, by nftables: new ones go to a server by a hash, and stay there.

| packet | what happens to it |
| --- | --- |
| the first one of a connection to an own address and the port | the table of slots chooses a server |
| later ones, and the answers | as the first one, whatever servers there are by then: a server that leaves is drained |
| all of them on the way to a server | their source is the balancer, so that answers come back through it |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsm.chains.model.addresses import Address
from nsm.services.nft import Command, change

from .maglev import SLOTS, table

TABLE = "nsm-lb"
_SEED = 0x6C62766C
"""The same in every process: a restarted balancer makes the same choices."""
_BEFORE_ROUTING, _BEHIND_ROUTING = -100, 100
_FAMILIES = {4: "ip", 6: "ip6"}


class Balancer:
    """Connections of `protocol` (``tcp`` or ``udp``) to `port` of own addresses go to `target_port` of servers."""

    def __init__(self, protocol: str, port: int, target_port: int) -> None:
        self._protocol, self._port, self._target_port = protocol, port, target_port

    async def begin(self) -> None:
        """Make the table; what an earlier process left of it is replaced. Raises as `nft.change` does."""
        whole = {"table": {"family": "inet", "name": TABLE}}
        await change([{"add": whole}, {"delete": whole}, {"add": whole}, *map(_chain, _CHAINS), _masquerade()])

    async def use(self, own: Sequence[Address], servers: Sequence[Address]) -> None:
        """Balance between these servers from now on; connections that exist stay. Raises as `nft.change` does."""
        chain = {"chain": {"family": "inet", "table": TABLE, "name": "prerouting"}}
        await change([{"flush": chain}, *self.rules(own, servers)])

    async def end(self) -> None:
        """Remove the table. Raises as `nft.change` does."""
        await change([{"delete": {"table": {"family": "inet", "name": TABLE}}}])

    def rules(self, own: Sequence[Address], servers: Sequence[Address]) -> list[Command]:
        """A rule for each own address that has servers of its family; others are answered as any closed port is."""
        found = []
        for address in own:
            names = [str(server) for server in servers if server.version == address.version]
            if names:
                found.append(_rule("prerouting", self._expressions(address, names)))
        return found

    def _expressions(self, address: Address, servers: Sequence[str]) -> list[Any]:
        family = _FAMILIES[address.version]
        source = {"concat": [_field(family, "saddr"), _field(self._protocol, "sport")]}
        key = {"jhash": {"mod": SLOTS, "seed": _SEED, "expr": source}}
        data = {"set": [[slot, server] for slot, server in enumerate(table(servers))]}
        return [
            _equals(_field(family, "daddr"), str(address)),
            _equals(_field(self._protocol, "dport"), self._port),
            {"dnat": {"family": family, "addr": {"map": {"key": key, "data": data}}, "port": self._target_port}},
        ]


_CHAINS = (("prerouting", _BEFORE_ROUTING), ("postrouting", _BEHIND_ROUTING))


def _chain(named: tuple[str, int]) -> Command:
    name, priority = named
    place = {"family": "inet", "table": TABLE, "name": name}
    return {"add": {"chain": {**place, "type": "nat", "hook": name, "prio": priority, "policy": "accept"}}}


def _masquerade() -> Command:
    is_balanced = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
    return _rule("postrouting", [is_balanced, {"masquerade": None}])


def _rule(chain: str, expressions: list[Any]) -> Command:
    return {"add": {"rule": {"family": "inet", "table": TABLE, "chain": chain, "expr": expressions}}}


def _field(protocol: str, field: str) -> Any:
    return {"payload": {"protocol": protocol, "field": field}}


def _equals(left: Any, right: Any) -> Any:
    return {"match": {"op": "==", "left": left, "right": right}}
