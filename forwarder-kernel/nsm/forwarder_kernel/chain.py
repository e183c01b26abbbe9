"""The chain of the kernel forwarder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nsm.apis.mechanisms import KERNEL, VLAN, VXLAN, WIREGUARD
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed import Endpoint, client, endpoint, registry_at, signs_in
from nsm.chains.core import DEFAULT_LIMITS, ENDPOINTS, SERVICES, Element, Limits, Peer, RegistryChain
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.elements.kernel import OfferKernel
from nsm.chains.elements.mechanism_priority import MechanismPriority
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.orphans import Orphans
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.identity import Identity
from nsm.chains.policy import CLIENT_MASKS, NO_TRUST, SERVER_MASKS, Trust
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.cache_providers import CacheProviders
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.registry.descriptors import ReceiveUrls
from nsm.chains.transport import CLOSE_PATIENCE, Pool, RemoteNetworkService, RemoteRegistry

from .dataplane import Dataplane
from .keep import REPAIR, Keep
from .kernel_wire import KernelWire
from .netlink import Address
from .policy_routes import PolicyRoutes
from .policy_tables import FROM_1
from .protect_node import ProtectNode, underlay_of
from .tell_mtu import TellMtu
from .tunnel_peers import AnsweredByManagers, AskedByForwarders
from .vlan import OfferVlan, Uplink
from .vxlan import OfferVxlan, TryAnotherVni, VxlanEnd, VxlanServer
from .wireguard import OfferWireguard, WireguardEnd, WireguardServer

OFFERED = (KERNEL, VXLAN, WIREGUARD, VLAN)
"""The mechanisms that a forwarder may offer, in its order of preference."""


def forwarder(
    name: str,
    identity: Identity,
    pool: Pool,
    *,
    nsmgr_url: str,
    tunnel_ip: Address | None = None,
    vxlan_port: int = 0,
    priority: Sequence[str] = (),
    uplinks: Sequence[Uplink] = (),
    policies: Sequence[str] = SERVER_MASKS,
    answer_policies: Sequence[str] = CLIENT_MASKS,
    trust: Trust = NO_TRUST,
    dataplane: Dataplane | None = None,
    observers: Sequence[Element] = (),
    unchecked_namespaces: bool = False,
    route_tables: str = FROM_1,
    reconcile: str = REPAIR,
    limits: Limits = DEFAULT_LIMITS,
    orphans: Orphans | None = None,
) -> Endpoint:
    """A forwarder called `name` that finds endpoints through the manager at `nsmgr_url`.

    Without a `tunnel_ip` it makes wires inside its node only, and to networks behind its `uplinks`. `vxlan_port` 0 is
    the usual one; mechanisms that `priority` lists are preferred in its order. `observers` see each connection
    with the wire that it has in `dataplane`. The manager passes on its clients' namespaces; any other component has to
    be entitled to the one that it sends, unless `unchecked_namespaces` is set and the kernel does not show that.
    `route_tables` sets the numbers of policy routes' tables, and `reconcile` what to do when wires change: see `Keep`.
    `orphans` sets for how long connections are kept whose caller cannot be reached.
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
    dataplane = dataplane or Dataplane(name)
    policy_routes = PolicyRoutes(dataplane.kernel, route_tables)
    offers: list[Element] = [OfferKernel()]
    served: dict[str, list[Element]] = {KERNEL: []}
    again: list[Element] = []
    hint = "" if tunnel_ip else "NSM_TUNNEL_IP, this node's address for wires to others, is not set"
    if tunnel_ip is not None:
        vxlan, wireguard = VxlanEnd(tunnel_ip, dataplane, port=vxlan_port), WireguardEnd(tunnel_ip, dataplane)
        offers += [OfferVxlan(vxlan), OfferWireguard(wireguard, far_side)]
        asked = AskedByForwarders(trust)
        served |= {VXLAN: [asked, VxlanServer(vxlan)], WIREGUARD: [asked, WireguardServer(wireguard)]}
        again = [TryAnotherVni(vxlan)]
    if uplinks:
        offers.append(OfferVlan(uplinks, dataplane))
    return endpoint(
        name,
        identity,
        [
            ReceiveDescriptors(unchecked=unchecked_namespaces, passes_on=is_manager, limits=limits),
            ReturnDescriptors(),
            Discover(services, endpoints),
            RoundRobin(),
            policy_routes,  # before the elements that make the interface: it routes by that
            *again,  # before all that takes part in another attempt
            Mechanisms(served),
            *observers,
            Keep(dataplane, policy_routes, reconcile),
            KernelWire(dataplane, far_side),
            ProtectNode(underlay_of(tunnel_ip), far_side),  # behind it: a harmful wire is not made
            Connect(
                client(
                    name,
                    [
                        far_side,  # before the offers: they are for the far side
                        *offers,
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
