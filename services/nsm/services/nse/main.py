"""An endpoint that answers pings: gives every client a wire and a pair of addresses."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.apis.connectioncontext import DnsConfig
from nsm.apis.mechanisms import KERNEL, NOOP
from nsm.apis.payloads import ETHERNET, IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.component import Runtime, run
from nsm.chains.composed import Endpoint, endpoint
from nsm.chains.config import address_groups, duration, flag, items, not_yet, pairs, text, url, variable
from nsm.chains.core import DEFAULT_LIMITS, Limits, RegistryCall, RegistryHandler
from nsm.chains.elements import policy_routing
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.dns_context import DnsContextServer
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.identity import Identity
from nsm.chains.logs import log
from nsm.chains.model.dns import parse_dns_configs
from nsm.chains.model.networks import NO_NETWORKS, Networks
from nsm.chains.policy import NO_TRUST, SERVER_MASKS, ServerPolicies, Trust, comes_for_many
from nsm.chains.transport import Health, serve
from nsm.services.networks import networks
from nsm.services.policies import REGISTRY_CLIENT, masks
from nsm.services.registration import register
from nsm.services.trust import EndpointTrusting

POLITE, STRICT = "polite", "strict"


def _payload(value: str) -> str:
    if value not in {IP, ETHERNET}:
        raise ValueError(f"expected {IP} or {ETHERNET}")
    return value


def _ipam_policy(value: str) -> str:
    if value not in {POLITE, STRICT}:
        raise ValueError(f"expected {POLITE} or {STRICT}")
    return value


@dataclass(frozen=True, kw_only=True)
class NseConfig(ServerPolicies, EndpointTrusting):
    """What to provide, and out of which addresses."""

    name: str = variable("icmp-server", text, "the endpoint's name; unique in the mesh")
    base_dir: str = variable("./", text, "accepted for compatibility")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    listen_on: str = variable("", url, "where to listen; empty: a socket in a folder of its own")
    registry_client_policies: tuple[str, ...] = variable(REGISTRY_CLIENT, masks, "policies for the manager's answers")
    dial_timeout: float = variable("5s", duration, "how long connecting to the manager may take")
    request_timeout: float = variable("15s", duration, "how long a registration may take")
    service_names: tuple[str, ...] = variable("icmp-responder", items, "the services to provide")
    payload: str = variable(ETHERNET, _payload, "what a wire carries: IP or ETHERNET")
    labels: dict[str, str] = variable("", pairs, "labels of the endpoint, key:value,..")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to give out")
    register_service: bool = variable("true", flag, "register the services themselves too")
    unregister_itself: bool = variable("false", flag, "unregister when stopping")
    ipam_policy: str = variable(
        "polite", _ipam_policy, "strict: a wire has no addresses but this endpoint's; polite: a client keeps its others"
    )
    accept_prefixes: Networks = variable(
        "", networks, "of which clients may bring any addresses and routes along, besides single private addresses"
    )
    idle_timeout: str = not_yet("0", "ending when idle")
    dns_configs: tuple[DnsConfig, ...] = variable("[]", parse_dns_configs, "what clients ask for names, a JSON array")
    pbr_config_path: str = variable(policy_routing.DEFAULT_PATH, text, "a YAML list of policy routes for clients")


def main(arguments: list[str]) -> int:
    """An endpoint that answers pings."""
    return run("nse", NseConfig, _serve, arguments)


def icmp_responder(
    name: str,
    identity: Identity,
    prefixes: Sequence[Sequence[str]],
    *,
    ipam_policy: str = POLITE,
    policies: str = policy_routing.DEFAULT_PATH,
    dns_configs: Sequence[DnsConfig] = (),
    server_policies: Sequence[str] = SERVER_MASKS,
    trust: Trust = NO_TRUST,
    allowed: Networks = NO_NETWORKS,
    limits: Limits = DEFAULT_LIMITS,
) -> Endpoint:
    """The endpoint's chain: an address pair out of each group of `prefixes`, policy routes, a kernel interface, DNS."""
    ipams = [Point2PointIpam(group) for group in prefixes]
    return endpoint(
        name,
        identity,
        [
            *ipams,
            *([StrictIpam(ipams)] if ipam_policy == STRICT else []),  # behind them: it keeps what they gave
            PolicyRouting(policies),  # behind the addresses: it adds some
            Mechanisms({KERNEL: [KernelServer()], NOOP: []}),
            DnsContextServer(dns_configs),
            ReturnDescriptors(),  # last: it sends what the mechanism named
        ],
        policies=server_policies,
        trust=trust,
        limits=limits,
        allowed=allowed,
    )


async def _serve(config: NseConfig, runtime: Runtime) -> None:
    trust = config.trust_by(runtime.pool)
    async with AsyncExitStack() as stack:
        listen_on = config.listen_on or f"unix://{stack.enter_context(_folder())}/listen.on"
        chain = icmp_responder(
            config.name,
            runtime.identity,
            config.cidr_prefix,
            ipam_policy=config.ipam_policy,
            policies=config.pbr_config_path,
            dns_configs=config.dns_configs,
            server_policies=config.server_policies,
            trust=trust,
            allowed=config.accept_prefixes,
            limits=config.limits,
        )
        server = await stack.enter_async_context(chain)
        health = Health("networkservice.NetworkService", "connection.MonitorConnection")
        methods, access = {**server.methods(), **health.methods()}, runtime.access(config)
        serving = serve(
            [listen_on],
            methods,
            runtime.identity,
            name=config.name,
            access=access,
            limits=config.limits,
            is_intermediary=comes_for_many(trust, runtime.identity.spiffe_id),
        )
        bound = await stack.enter_async_context(serving)
        await runtime.unless_stopped(_register(config, runtime, bound[0], stack))
        log.info("ready", listen_on=bound[0], services=config.service_names)
        await runtime.stopping.wait()


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nse-")


async def _register(config: NseConfig, runtime: Runtime, listen_on: str, stack: AsyncExitStack) -> None:
    names = config.service_names if config.register_service else ()
    endpoints = await register(
        stack,
        runtime.pool,
        config.connect_to,
        _record(config, listen_on),
        [NetworkService(name=name, payload=config.payload) for name in names],
        config=config,
        policies=config.registry_client_policies,
    )
    if config.unregister_itself:
        stack.push_async_callback(_unregister, endpoints, config.name, config.request_timeout)


async def _unregister(endpoints: RegistryHandler[NetworkServiceEndpoint], name: str, timeout: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout
    await endpoints.unregister(RegistryCall(NetworkServiceEndpoint(name=name), deadline=deadline))


def _record(config: NseConfig, listen_on: str) -> NetworkServiceEndpoint:
    labels = {name: NetworkServiceLabels(labels=dict(config.labels)) for name in config.service_names}
    return NetworkServiceEndpoint(
        name=config.name,
        network_service_names=list(config.service_names),
        network_service_labels=labels,
        url=listen_on,
    )
