"""An endpoint without a dataplane: tells clients in which VLAN, behind an uplink of their own node, a service is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.apis.mechanisms import VLAN
from nsm.apis.payloads import ETHERNET
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.component import Runtime, run
from nsm.chains.composed import Endpoint, endpoint
from nsm.chains.config import address_groups, flag, text, url, variable
from nsm.chains.core import DEFAULT_LIMITS, Limits, MeshError
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.identity import Identity
from nsm.chains.logs import log
from nsm.chains.model.vlans import VlanService, parse_vlan_services
from nsm.chains.policy import NO_TRUST, SERVER_MASKS, ServerPolicies, Trust, comes_for_many
from nsm.chains.transport import Health, parse_address, serve
from nsm.services.policies import REGISTRY_CLIENT, masks
from nsm.services.registration import register
from nsm.services.trust import EndpointTrusting


def _tcp(value: str) -> str:
    """A node that could reach the endpoint by a unix socket would offer it wires inside the node."""
    try:
        if not parse_address(value).is_unix:
            return value
    except MeshError:
        pass
    raise ValueError("expected a place on TCP, such as tcp://:5003")


@dataclass(frozen=True, kw_only=True)
class NseRemoteVlanConfig(ServerPolicies, EndpointTrusting):
    """Which services are in which VLANs, and out of which addresses their clients get one each."""

    name: str = variable("vlan-server", text, "the endpoint's name; unique in the mesh")
    connect_to: str = variable("nsm-registry-svc:5002", url, "the registry, not a manager: every node asks directly")
    listen_on: str = variable("tcp://:5003", _tcp, "where to listen, and where the nodes' forwarders ask")
    registry_client_policies: tuple[str, ...] = variable(REGISTRY_CLIENT, masks, "policies for the registry's answers")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to give out")
    services: tuple[VlanService, ...] = variable(
        "", parse_vlan_services, "what to provide: name { vlan: 100; via: gw-1 }, ..; at least one; vlan 0: no tag"
    )
    register_service: bool = variable("true", flag, "register the services themselves too")


def main(arguments: list[str]) -> int:
    """An endpoint that puts clients into VLANs behind the nodes' uplinks."""
    return run("nse-remote-vlan", NseRemoteVlanConfig, _serve, arguments)


def vlan_endpoint(
    name: str,
    identity: Identity,
    prefixes: Sequence[Sequence[str]],
    services: Sequence[VlanService],
    *,
    policies: Sequence[str] = SERVER_MASKS,
    trust: Trust = NO_TRUST,
    limits: Limits = DEFAULT_LIMITS,
) -> Endpoint:
    """The endpoint's chain: an address out of each group of `prefixes`, with the length of the prefix, and a VLAN."""
    return endpoint(
        name,
        identity,
        [
            *(SinglePointIpam(group) for group in prefixes),
            Mechanisms({VLAN: [VlanServer(services)]}),
        ],
        policies=policies,
        trust=trust,
        limits=limits,
    )


async def _serve(config: NseRemoteVlanConfig, runtime: Runtime) -> None:
    trust = config.trust_by(runtime.pool)
    async with AsyncExitStack() as stack:
        chain = vlan_endpoint(
            config.name,
            runtime.identity,
            config.cidr_prefix,
            config.services,
            policies=config.server_policies,
            trust=trust,
            limits=config.limits,
        )
        server = await stack.enter_async_context(chain)
        health = Health("networkservice.NetworkService", "connection.MonitorConnection")
        methods = {**server.methods(), **health.methods()}
        serving = serve(
            [config.listen_on],
            methods,
            runtime.identity,
            name=config.name,
            limits=config.limits,
            is_intermediary=comes_for_many(trust, runtime.identity.spiffe_id),
        )
        (public,) = await stack.enter_async_context(serving)
        await runtime.unless_stopped(_register(config, runtime, public, stack))
        log.info("ready", listen_on=public, services=[service.name for service in config.services])
        await runtime.stopping.wait()


async def _register(config: NseRemoteVlanConfig, runtime: Runtime, public: str, stack: AsyncExitStack) -> None:
    names = [service.name for service in config.services] if config.register_service else []
    await register(
        stack,
        runtime.pool,
        config.connect_to,
        _record(config, public),
        [NetworkService(name=name, payload=ETHERNET) for name in names],
        config=config,
        policies=config.registry_client_policies,
    )


def _record(config: NseRemoteVlanConfig, public: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=config.name,
        network_service_names=[service.name for service in config.services],
        network_service_labels={
            service.name: NetworkServiceLabels(labels=dict(service.labels)) for service in config.services
        },
        url=public,
    )
