"""The local DNS server of a client, as a list of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from nsm.apis.connectioncontext import DnsConfig

from .cache import Cache
from .check_message import CheckMessage
from .configs import UseConfigs
from .exchange import exchange
from .fanout import Ask, Fanout
from .no_loop import NoLoop
from .query import Rest, listed
from .searches import Searches
from .server import listening


def answers(configs: Mapping[str, Sequence[DnsConfig]], own: str, ask: Ask = exchange) -> Rest:
    """Answers queries; `configs` may change at any time, `own` is the server's own address."""
    return listed(
        [
            CheckMessage(),
            UseConfigs(configs, own),
            Searches(),  # before the cache, which uses full names
            NoLoop(),  # behind the search, which may send several queries
            Cache(),
            Fanout(ask),
        ]
    )


def serving(host: str, port: int, configs: Mapping[str, Sequence[DnsConfig]]) -> AbstractAsyncContextManager[int]:
    """The server; yields its port."""
    return listening(host, port, answers(configs, host))
