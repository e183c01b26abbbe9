"""An endpoint of a vL3 network: routes between its clients and those of all other endpoints of the network."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import KERNEL
from nsm.chains.component import Runtime, run
from nsm.chains.composed import client, monitors, registry_at, services_at
from nsm.chains.core import Chain, Conflict, Element, MeshError, Tasks
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.kernel_liveness import KernelLiveness
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.recover import Recover
from nsm.chains.elements.retry import Retry
from nsm.chains.elements.vl3_client import Vl3Client
from nsm.chains.elements.vl3_dns import Vl3DnsClient, Vl3DnsServer, Vl3Names
from nsm.chains.elements.vl3_ipam import Vl3Ipam, Vl3Peers
from nsm.chains.elements.vl3_mtu import SmallestMtu, Vl3Mtu
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network
from nsm.chains.model.networks import Networks
from nsm.chains.model.vl3 import names_of
from nsm.chains.serving import serve_endpoint
from nsm.chains.transport import RemoteNetworkService

from .config import NseVl3Config
from .kernel import Vl3Kernel
from .names import Names, NameServers
from .peers import Peers, PeerWires, Selection
from .prefix_client import PrefixClient

_CONFLICTS = {"vl3_ipam", "vl3_client"}
"""The elements that find that two endpoints have one prefix."""


def main(arguments: list[str]) -> int:
    """An endpoint of a vL3 network."""
    return run("nse-vl3", NseVl3Config, serve_vl3, arguments)


def vl3_server(
    network: Vl3Network,
    peers: Vl3Peers,
    names: Vl3Names,
    mtu: SmallestMtu,
    templates: Sequence[str],
    requested: Container[str] = (),
) -> list[Element]:
    """The chain for clients, and for younger endpoints; `requested` are the interfaces of wires to older ones."""
    return [
        Vl3DnsServer(network, peers, names, templates),  # before the addresses: it names the client that got them
        Vl3Mtu(mtu),
        Vl3Ipam(network, peers, requested),
        Mechanisms({KERNEL: [KernelServer()]}),
        ReturnDescriptors(),  # last: it sends the file that the mechanism named
    ]


def vl3_client(
    network: Vl3Network, names: Vl3Names, mtu: SmallestMtu, interfaces: KernelClient, outside: Callable[[], Networks]
) -> list[Element]:
    """The chain to an older endpoint; its routes must not take over the networks `outside`."""
    return [
        Vl3DnsClient(network, names),
        Vl3Mtu(mtu, requests=True),
        Vl3Client(network),
        interfaces,
        AcceptRoutes(underlay=outside),
        SendDescriptors(),
    ]


async def serve_vl3(config: NseVl3Config, runtime: Runtime) -> None:
    """Serve until the process is asked to stop. Raises as `serve_endpoint` does, and if the kernel cannot be set."""
    network, names, mtu, kernel = Vl3Network(len(config.prefix_server_url)), Names(), SmallestMtu(), Vl3Kernel()
    interfaces = KernelClient()
    peers = _peers(config, runtime)
    async with Tasks("vL3") as tasks:
        prefixes = [
            PrefixClient(url, runtime.pool, config.name, partial(network.set, number), kernel.outside, former)
            for number, (url, former) in enumerate(zip(config.prefix_server_url, _former(kernel, config), strict=True))
        ]
        servers = NameServers(network, names, tasks, own_names(config))
        network.on_change(partial(_follow, network, kernel, servers))
        for each in prefixes:
            tasks.spawn(each.run(), name="prefix service")
        log.info("waiting for a prefix", of=list(config.prefix_server_url))
        await runtime.unless_stopped(network.ready())
        kernel.set(network.shares)  # fails here, not in the background
        to_others = vl3_client(network, names, mtu, interfaces, kernel.outside)
        liveness = KernelLiveness(config.liveness_check_timeout) if config.liveness_check_enabled else None
        async with _to_others(config, runtime, to_others, prefixes, liveness) as chain:
            wires = PeerWires(chain, config.name, config.service_names[0], config.request_labels, tasks, liveness)
            tasks.spawn(peers.run(wires.follow), name="endpoints")
            elements = vl3_server(network, peers, names, mtu, config.dns_templates, interfaces.names)
            await serve_endpoint(config, runtime, elements, use=peers.is_client)
            await wires.close()


def own_names(config: NseVl3Config) -> list[str]:
    """The names of the endpoint itself, by the templates; none without the labels that they use (POD_NAME)."""
    where = {"nodeName": config.node_name, "podName": config.pod_name, "clusterName": config.cluster_name}
    labels = {key: value for key, value in where.items() if value}
    connections = [Connection(network_service=service, labels=labels) for service in config.service_names]
    return [name for connection in connections for name in names_of(connection, config.dns_templates)]


def _peers(config: NseVl3Config, runtime: Runtime) -> Peers:
    url, labels, service = config.connect_to, config.request_labels, config.service_names[0]
    selection = Selection(service, labels, services_at(url, runtime.pool), config.limits) if labels else None
    return Peers(config.name, config.service_names, registry_at(url, runtime.pool), config.limits, selection)


def _to_others(
    config: NseVl3Config,
    runtime: Runtime,
    elements: Sequence[Element],
    prefixes: Sequence[PrefixClient],
    liveness: KernelLiveness | None,
) -> Chain:
    """The client of other endpoints, which keeps its wires."""
    manager = monitors(runtime.pool)

    def failed(asked: Connection, error: MeshError, pause: float) -> None:
        endpoint = asked.network_service_endpoint_name
        log.warning("not connected to an endpoint yet", endpoint=endpoint, error=str(error), again_in_s=pause)
        if isinstance(error, Conflict) and error.element in _CONFLICTS:
            for each in prefixes:
                each.conflicts(str(error))

    return client(
        config.name,
        elements,
        RemoteNetworkService(runtime.pool, timeout=config.request_timeout),
        first=[
            Retry(timeout=config.request_timeout, tell=failed),
            Recover(config.name, partial(manager.present, config.connect_to), liveness=liveness, limits=config.limits),
        ],
        url=config.connect_to,
        refresh=True,
        heal=Heal(manager, liveness, interval=config.liveness_check_interval),
        liveness=liveness,
        policies=config.client_policies,
        limits=config.limits,
    )


def _follow(network: Vl3Network, kernel: Vl3Kernel, servers: NameServers) -> None:
    """A share has changed: have its address here, and serve names on it."""
    if network.is_ready:
        try:
            kernel.set(network.shares)
        except MeshError as error:
            log.error("the prefix cannot be used", error=str(error))
        servers.follow()


def _former(kernel: Vl3Kernel, config: NseVl3Config) -> list[Network | None]:
    """The prefixes of an earlier process here, for the prefix services in their order; None: unknown."""
    try:
        found = sorted(kernel.former(), key=lambda each: each.version)
    except OSError as error:
        log.warning("cannot see which prefixes an earlier process had", error=str(error))
        found = []
    services = len(config.prefix_server_url)
    return [*found, *[None] * services][:services] if len(found) == services else [None] * services
