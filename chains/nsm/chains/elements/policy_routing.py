"""Policy routes that an endpoint gives to its clients, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import PolicyRoute, Route
from nsm.chains.config.watched_file import WatchedFile
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model import policies
from nsm.chains.model.ipcontext import ip_context_of
from nsm.chains.reading import Field, Fields

DEFAULT_PATH = "/etc/policy-based-routing/config.yaml"
_FIELDS = {"from": "from_", "proto": "proto", "dstport": "dst_port", "srcport": "src_port"}
_EXPECTED = "expected a list such as [{from: 172.16.2.1/32, proto: 6, dstport: 80, routes: [{prefix: 10.0.0.0/8}]}]"


class PolicyRouting(Element):
    """Give each client the policies of a file, and their source addresses, in place of the former ones.

    The file is a YAML list of ``{from, proto, dstport, srcport, routes: [{prefix, nexthop}]}`` and may change at any
    time, or not exist. Stands behind the elements that give addresses.
    """

    def __init__(self, path: str = DEFAULT_PATH) -> None:
        self._file = WatchedFile(path, policies_of, usual=DEFAULT_PATH)
        self._file.value()  # a fault of the file is reported when the component starts
        self._added: Key[frozenset[str]] = Key("addresses of policies")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Replace the policies, and their addresses."""
        context = ip_context_of(call.connection)
        added = call.live.get(self._added)
        if added is None:  # the policies of an earlier process of this endpoint
            added = frozenset(policy.from_ for policy in context.policies)
        wanted = self._file.value()
        own = [address for address in context.src_ip_addrs if address not in added]
        new = [
            address for address in dict.fromkeys(policy.from_ for policy in wanted) if address and address not in own
        ]
        context.src_ip_addrs = [*own, *new]
        context.policies = [codec.clone(policy) for policy in wanted]
        call.live.put(self._added, added.union(new))  # if this fails, the client still has the former ones
        connection = await rest.request(call)
        call.live.put(self._added, frozenset(new))
        return connection


def policies_of(document: Any) -> tuple[PolicyRoute, ...]:
    """The policies in the file. Raises ValueError that names the invalid one."""
    if not isinstance(document or [], list):
        raise ValueError(_EXPECTED)
    return tuple(_policy(number, item) for number, item in enumerate(document or [], 1))


def _policy(number: int, item: Any) -> PolicyRoute:
    try:
        fields = _fields(Field(item, ""), [*_FIELDS, "routes"], "a policy")
        texts = {field: fields[key].text_or_number() for key, field in _FIELDS.items()}
        policy = PolicyRoute(**texts, routes=[_route(route) for route in fields["routes"].each()])
        policies.check(policy)
    except ValueError as error:
        raise ValueError(f"policy {number}: {error}") from None
    return policy


def _route(item: Field) -> Route:
    fields = _fields(item, ["prefix", "nexthop"], "a route")
    return Route(prefix=fields["prefix"].text(), next_hop=fields["nexthop"].text())


def _fields(item: Field, known: Sequence[str], what: str) -> Fields:
    if not isinstance(item.value, dict):
        raise ValueError(_EXPECTED)
    return item.fields(known, what, is_root=not item.path)
