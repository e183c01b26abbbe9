"""The chain of the kernel forwarder."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.mechanisms import KERNEL, VLAN, VXLAN, WIREGUARD
from nsm.chains import composed
from nsm.chains.composed.forwarder import forwarder as composed_forwarder
from nsm.chains.core import DEFAULT_LIMITS, Element, Limits
from nsm.chains.elements.orphans import Orphans
from nsm.chains.forwarding.keep import REPAIR, Keep
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.forwarding.protect_node import underlay_of
from nsm.chains.forwarding.vlan import Uplink, vlan
from nsm.chains.forwarding.vxlan import vxlan
from nsm.chains.forwarding.wireguard import wireguard
from nsm.chains.identity import Identity
from nsm.chains.model.addresses import Address
from nsm.chains.policy import CLIENT_MASKS, NO_TRUST, SERVER_MASKS, Trust
from nsm.chains.transport import Pool

from .dataplane import Dataplane
from .policy_routes import PolicyRoutes
from .policy_tables import FROM_1
from .watcher import Watcher

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
) -> composed.Endpoint:
    """A forwarder called `name` that makes wires of the kernel's devices; see `nsm.chains.composed.forwarder`.

    Without a `tunnel_ip` it makes wires inside its node only, and to networks behind its `uplinks`. `vxlan_port` 0 is
    the usual one. `observers` see each connection with the wire that it has in `dataplane`. `route_tables` sets the
    numbers of policy routes' tables, and `reconcile` what to do when wires change: see `Keep`.
    """
    dataplane = dataplane or Dataplane(name)
    policy_routes = PolicyRoutes(dataplane.kernel, route_tables)
    tunnels = (
        [vxlan(tunnel_ip, dataplane, trust, port=vxlan_port), wireguard(tunnel_ip, dataplane, trust)]
        if tunnel_ip
        else []
    )
    return composed_forwarder(
        name,
        identity,
        pool,
        dataplane,
        [kernel(), *tunnels, *([vlan(uplinks, dataplane)] if uplinks else [])],
        nsmgr_url=nsmgr_url,
        around=[policy_routes],  # it routes by the finished interface
        watchers=[*observers, Keep(Watcher(dataplane, policy_routes), reconcile)],
        underlay=underlay_of(tunnel_ip),
        hint="" if tunnel_ip else "NSM_TUNNEL_IP, this node's address for wires to others, is not set",
        priority=priority,
        policies=policies,
        answer_policies=answer_policies,
        trust=trust,
        unchecked_namespaces=unchecked_namespaces,
        limits=limits,
        orphans=orphans,
    )
