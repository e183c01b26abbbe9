"""The base of everything that serves connections: endpoints, managers, forwarders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from nsm.apis.connection import ConnectionEvent, MonitorScopeSelector
from nsm.chains.core import DEFAULT_LIMITS, Begin, Chain, Element, Handler, Limits, RegistryChain
from nsm.chains.elements.attempts import Attempts
from nsm.chains.elements.authorize import Authorize
from nsm.chains.elements.check_values import CheckRequest
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.former_wires import LIFETIME, FormerWires
from nsm.chains.elements.limit_connections import LimitConnections
from nsm.chains.elements.monitor import Monitor
from nsm.chains.elements.orphans import Orphans
from nsm.chains.elements.own_addresses import OwnAddresses
from nsm.chains.elements.refuse_paths import RefusePaths
from nsm.chains.elements.timeout import Timeout
from nsm.chains.elements.trim_path import TrimPath
from nsm.chains.elements.update_path import Owned, UpdatePath
from nsm.chains.elements.update_token import UpdateToken
from nsm.chains.identity import Identity
from nsm.chains.model.networks import NO_NETWORKS, Networks
from nsm.chains.policy import NO_TRUST, SERVER_MASKS, Trust
from nsm.chains.transport import Methods, Monitors, Pool, RemoteMonitor, monitor, network_service


@dataclass(frozen=True)
class Endpoint:
    """A server's chain and its APIs. As an async context manager it releases its elements."""

    chain: Chain
    begin: Begin
    monitor: Monitor
    asked: Sequence[RegistryChain[Any]] = ()
    """The registry chains that its elements query: released with them."""

    def methods(self) -> Methods:
        """The Network Service and the Monitor API."""
        return {**network_service(self.chain), **monitor(self.monitor)}

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.chain.aclose()
        for registry in self.asked:
            await registry.aclose()


def endpoint(
    name: str,
    identity: Identity,
    elements: Sequence[Element],
    *,
    policies: Sequence[str] = SERVER_MASKS,
    trust: Trust = NO_TRUST,
    pool: Pool | None = None,
    end: Handler | None = None,
    asked: Sequence[RegistryChain[Any]] = (),
    limits: Limits = DEFAULT_LIMITS,
    allowed: Networks = NO_NETWORKS,
    orphans: Orphans | None = None,
    attempts: Attempts | None = None,
) -> Endpoint:
    """A server called `name` whose own part is `elements`; no request holds more than `limits`.

    `trust` lists who may vouch for others in a path, and who may watch. With a `pool` the monitor relays the events of
    the components further along the connections. If none of the elements passes requests on to another component,
    clients may bring only the addresses and routes that `OwnAddresses` describes, and those within `allowed`. `orphans`
    sets for how long connections are kept whose caller cannot be reached; `attempts`, for the first component behind
    clients, remembers what failed.
    """
    goes_on = any(isinstance(each, Connect) for each in elements)
    begin = Begin(is_last=not goes_on)
    former = FormerWires(elements, (orphans.lifetime if orphans is not None else 0.0) or LIFETIME)
    events = Monitor(monitors(pool, trust) if pool is not None else None, trust, limits, attempts)
    chain = Chain(
        [
            CheckRequest(limits),  # first: no element works with an invalid request
            UpdatePath(name, owned=Owned(trust, begin)),  # before begin, which uses the id that it sets
            *([attempts] if attempts is not None else []),  # before all that may refuse a client
            begin,  # elements behind it run once at a time for each connection, with its store
            UpdateToken(identity),  # before authorize, which looks at the tokens
            Authorize(policies, trust, orphans, goes_on=goes_on),
            LimitConnections(limits, trust, elements),  # behind authorize, which sets their owner
            RefusePaths(),  # before all elements that may open or send a named file
            Timeout(orphans),
            events,  # sees the connection as the caller receives it
            TrimPath(),
            *([] if goes_on else [OwnAddresses(elements, allowed, former=former)]),  # before all that assigns addresses
            *elements,
        ],
        end,
    )
    return Endpoint(chain, begin, events, asked)


def monitors(pool: Pool, trust: Trust | None = None) -> Monitors:
    """The monitor streams of a component that reaches other components by `pool`.

    `trust` lists who may report many connections at once; without it, every component that is monitored may.
    """
    trusts = trust.matches if trust is not None else None

    def events(target: str, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        return RemoteMonitor(pool, target, trusts, knows_answers=True, in_parts=True).monitor(selector)

    return Monitors(events)
