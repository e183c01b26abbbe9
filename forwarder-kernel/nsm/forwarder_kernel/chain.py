"""The chain of the kernel forwarder."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.apis.mechanisms import KERNEL
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed import Endpoint, client, endpoint
from nsm.chains.core import ENDPOINTS, SERVICES, RegistryChain
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.elements.kernel import OfferKernel
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.identity import Identity
from nsm.chains.policy import SERVER_MASKS
from nsm.chains.registry.client_url import ClientUrl
from nsm.chains.registry.descriptors import ReceiveUrls
from nsm.chains.transport import Pool, RemoteNetworkService, RemoteRegistry

from .dataplane import Dataplane
from .kernel_wire import KernelWire
from .policy_routes import PolicyRoutes


def forwarder(
    name: str,
    identity: Identity,
    pool: Pool,
    *,
    nsmgr_url: str,
    policies: Sequence[str] = SERVER_MASKS,
) -> Endpoint:
    """A forwarder called `name` that finds endpoints through the manager at `nsmgr_url`."""
    services: RegistryChain[NetworkService] = RegistryChain([ClientUrl(nsmgr_url)], RemoteRegistry(SERVICES, pool))
    endpoints: RegistryChain[NetworkServiceEndpoint] = RegistryChain(
        [ClientUrl(nsmgr_url), ReceiveUrls(pool.adopt)], RemoteRegistry(ENDPOINTS, pool)
    )
    far_side = MechanismTranslation()
    return endpoint(
        name,
        identity,
        [
            ReceiveDescriptors(),
            ReturnDescriptors(),
            Discover(services, endpoints),
            RoundRobin(),
            PolicyRoutes(),  # before the mechanisms: it routes by the interface that they make
            Mechanisms({KERNEL: [KernelWire(Dataplane(name), far_side)]}),
            Connect(
                client(
                    name,
                    [
                        far_side,  # before the offers: they are for the far side
                        OfferKernel(),
                        FilterMechanisms(),  # behind all offers
                        ReceiveReturned(),
                        SendDescriptors(),
                    ],
                    RemoteNetworkService(pool),
                )
            ),
        ],
        policies=policies,
        pool=pool,
    )
