"""What the forwarder's chain is composed of: functions alone, or the kernel's interfaces for other clients too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nsm.apis.mechanisms import KERNEL, NOOP, VFIO
from nsm.chains.core import Element
from nsm.chains.elements.kernel import OfferKernel
from nsm.chains.elements.noop import OfferNoop
from nsm.chains.forwarding.combined import Combined
from nsm.chains.forwarding.dataplane import Dataplane
from nsm.chains.forwarding.for_clients import ForClients
from nsm.chains.forwarding.keep import REPAIR, Keep
from nsm.chains.forwarding.sides import KernelInterface, Nothing, Side, VirtualFunction
from nsm.chains.forwarding.sriov_tokens import RequireToken
from nsm.chains.forwarding.supported import Supported
from nsm.chains.policy import Trust
from nsm.chains.serving.forwarder import TunnelConfig
from nsm.forwarder_kernel.chain import tunnels
from nsm.forwarder_kernel.dataplane import Dataplane as KernelDataplane
from nsm.forwarder_kernel.policy_routes import PolicyRoutes
from nsm.forwarder_kernel.watcher import Watcher

from .dataplane import SriovDataplane


@dataclass(frozen=True)
class Parts:
    """The arguments of `nsm.chains.composed.forwarder` that differ."""

    dataplane: Dataplane[Any]
    supported: Sequence[Supported]
    around: Sequence[Element]
    watchers: Sequence[Element] = ()


def functions_only(sriov: SriovDataplane) -> Parts:
    """For clients with a token; endpoints are offered that nothing is made there: the cards' network joins both."""
    served = [Supported(kind=kind, served=[RequireToken()]) for kind in (KERNEL, VFIO)]
    supported = [*served, Supported(kind=NOOP, served=[], offered=[OfferNoop()])]
    return Parts(sriov, supported, [PolicyRoutes(sriov.kernel)])


def with_kernel_wires(sriov: SriovDataplane, config: TunnelConfig, trust: Trust) -> Parts:
    """For all clients: those without a token get wires of the kernel's interfaces, and tunnels to other nodes."""
    kernel = KernelDataplane(config.name, claim_within=config.max_token_lifetime)
    others = tunnels(kernel, trust, config.tunnel_ip, config.vxlan_port, config.device_selector_file)
    supported = [
        Supported(kind=KERNEL, served=[], offered=[ForClients(_is_other, [OfferKernel()])]),
        Supported(kind=VFIO, served=[RequireToken()]),
        Supported(kind=NOOP, served=[], offered=[ForClients(is_of_functions, [OfferNoop()])]),
        *(replace(each, offered=[ForClients(_is_other, each.offered)]) for each in others),
    ]
    both = Combined([(lambda wire: is_of_functions(wire.client.side), sriov)], kernel)
    policy_routes = PolicyRoutes(kernel.kernel)
    return Parts(both, supported, [policy_routes], [Keep(Watcher(kernel, policy_routes), REPAIR)])


def is_of_functions(side: Side) -> bool:
    """Whether a client's wire is a virtual function, or nothing is made for it."""
    return isinstance(side, VirtualFunction | Nothing) or (isinstance(side, KernelInterface) and bool(side.token))


def _is_other(side: Side) -> bool:
    return not is_of_functions(side)
