"""The forwarder of a node: it finds the endpoint, chooses how to reach it, and makes the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import DEFAULT_LIMITS, ENDPOINTS, SERVICES, Element, Limits, Peer, RegistryChain
from nsm.chains.elements.accept_routes import nowhere
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.elements.mechanism_priority import MechanismPriority
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.orphans import Orphans
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.forwarding.dataplane import Dataplane
from nsm.chains.forwarding.make_wire import MakeWire
from nsm.chains.forwarding.protect_node import ProtectNode
from nsm.chains.forwarding.supported import Supported
from nsm.chains.forwarding.tell_mtu import TellMtu
from nsm.chains.forwarding.tunnel_peers import AnsweredByManagers
from nsm.chains.identity import Identity
from nsm.chains.model.networks import Networks
from nsm.chains.policy import CLIENT_MASKS, NO_TRUST, SERVER_MASKS, Trust
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.cache_providers import CacheProviders
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.descriptors import ReceiveUrls
from nsm.chains.transport import CLOSE_PATIENCE, Pool, RemoteNetworkService, RemoteRegistry

from .client import client
from .endpoint import Endpoint, endpoint
from .registry_client import registry_at, signs_in


def forwarder(
    name: str,
    identity: Identity,
    pool: Pool,
    dataplane: Dataplane[Any],
    supported: Sequence[Supported],
    *,
    nsmgr_url: str,
    around: Sequence[Element] = (),
    watchers: Sequence[Element] = (),
    underlay: Callable[[], Networks] = nowhere,
    hint: str = "",
    priority: Sequence[str] = (),
    policies: Sequence[str] = SERVER_MASKS,
    answer_policies: Sequence[str] = CLIENT_MASKS,
    trust: Trust = NO_TRUST,
    unchecked_namespaces: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    orphans: Orphans | None = None,
) -> Endpoint:
    """A forwarder called `name` that makes wires by a `dataplane`; it finds endpoints through the manager.

    It serves and offers the mechanisms that are `supported`, in this order; those that `priority` lists are preferred
    in its order. `around` are elements of the dataplane's that work on finished connections, and `watchers` see each
    connection with its wire, under `LIVE`. No wire may reach the `underlay` of tunnels; `hint` tells the operator why
    nothing is offered to other nodes.

    The manager passes on its clients' namespaces; any other component has to be entitled to the one that it sends,
    unless `unchecked_namespaces` is set and the kernel does not show that. `orphans` sets for how long connections are
    kept whose caller cannot be reached.
    """
    services: RegistryChain[NetworkService] = RegistryChain(
        [Cache(SERVICES), RegistryClientUrl(nsmgr_url)], RemoteRegistry(SERVICES, pool)
    )
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [ReceiveUrls(pool.adopt), CacheProviders(), RegistryClientUrl(nsmgr_url)], RemoteRegistry(ENDPOINTS, pool)
    )
    if orphans is not None:
        registered = signs_in(registry_at(nsmgr_url, pool))
        orphans.looks_by(lambda _manager: registered(name))  # it is back when we are registered there again
    far_side, is_manager = MechanismTranslation(), partial(_is_at, pool, nsmgr_url)
    return endpoint(
        name,
        identity,
        [
            ReceiveDescriptors(unchecked=unchecked_namespaces, passes_on=is_manager, limits=limits),
            ReturnDescriptors(),
            Discover(services, endpoints),
            RoundRobin(),
            *around,
            *(element for each in supported for element in each.again),  # before all that takes part in another attempt
            Mechanisms({each.kind: each.served for each in supported if each.served is not None}),
            *watchers,
            MakeWire(dataplane, far_side),
            ProtectNode(underlay, far_side),  # behind it: a harmful wire is not made
            Connect(
                client(
                    name,
                    [
                        far_side,  # before the offers: they are for the far side
                        *(element for each in supported for element in each.offered),
                        FilterMechanisms(hint),  # behind all offers
                        MechanismPriority(priority),
                        TellMtu(),  # behind all offers: it reads their MTU
                        AnsweredByManagers(trust),  # behind all offers: they use no other answers
                        ReceiveReturned(unchecked=unchecked_namespaces, far_side=far_side),
                        SendDescriptors(),
                    ],
                    RemoteNetworkService(pool, patience=CLOSE_PATIENCE),
                    policies=answer_policies,
                    limits=limits,
                )
            ),
        ],
        policies=policies,
        trust=trust,
        pool=pool,
        asked=[services, endpoints],
        limits=limits,
        orphans=orphans,
    )


async def _is_at(pool: Pool, url: str, peer: Peer) -> bool:
    """Whether `peer` is the component at `url`."""
    return (await pool.channel(url).peer()).spiffe_id == peer.spiffe_id
