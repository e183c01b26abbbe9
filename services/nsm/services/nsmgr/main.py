"""The manager of a node: the entry point for its clients, endpoints and forwarders."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed import Beyond, beyond, nsmgr
from nsm.chains.config import duration, flag, host_and_port, text, url, urls, variable
from nsm.chains.core import Tasks
from nsm.chains.elements import excluded_prefixes
from nsm.chains.elements.orphans import Keeping, Orphans
from nsm.chains.logs import log
from nsm.chains.model.networks import Networks
from nsm.chains.policy import (
    ClientPolicies,
    RegistryClientPolicies,
    RegistryServerPolicies,
    ServerPolicies,
    Trusting,
    acts_for_many,
)
from nsm.chains.transport import Health, Method, serve
from nsm.services.networks import EVERYTHING, accepted


@dataclass(frozen=True, kw_only=True)
class NsmgrConfig(
    ServerPolicies,
    ClientPolicies,
    RegistryServerPolicies,
    RegistryClientPolicies,
    Trusting,
    Keeping,
):
    """Where to listen, and the address of the registry."""

    name: str = variable("nmgr", text, "the name of this manager's path segment; unique in the mesh")
    listen_on: tuple[str, ...] = variable(
        "unix:///var/lib/networkservicemesh/nsm.io.sock",
        urls,
        "where to listen; the first tcp:// is published to other nodes",
    )
    registry_url: str = variable("tcp://localhost:5001", url, "the registry; empty: this manager is the registry")
    proxy_registry_url: str = variable(
        "", url, "the proxy through which services of other domains, `service@domain`, are found; empty: the registry's"
    )
    prometheus_listen_on: tuple[str, int] = variable(
        ":8082", host_and_port, "where to serve metrics; another port than a forwarder's, which may be on the same host"
    )
    dial_timeout: float = variable("750ms", duration, "timeout for connecting to a peer")
    forwarder_network_service_name: str = variable("forwarder", text, "the service that forwarders register as")
    service_lifetime: float = variable(
        "24h", duration, "how long a service stays without an endpoint, unless registered again; 0: forever"
    )
    excluded_prefixes_file: str = variable(
        excluded_prefixes.DEFAULT_PATH, text, "YAML, prefixes: [..]: addresses that wires of this node must not use"
    )
    unchecked_namespaces: bool = variable(
        "false", flag, "accept a client's network namespace even if the kernel does not reveal whose it is"
    )
    accept_routes: Networks = variable(
        EVERYTHING, accepted, "prefixes to which endpoints may route traffic of this manager's clients"
    )


def main(arguments: list[str]) -> int:
    """The manager of a node: the entry point for its clients, endpoints and forwarders."""
    return run("nsmgr", NsmgrConfig, serve_manager, arguments)


async def serve_manager(config: NsmgrConfig, runtime: Runtime) -> None:
    """Serve a manager until the process is asked to stop. Raises `MeshError` if it cannot listen."""
    methods: dict[str, Method] = dict(Health(*_SERVICES).methods())
    access = runtime.access(config)
    serving = serve(
        config.listen_on,
        methods,
        runtime.identity,
        name=config.name,
        access=access,
        limits=config.limits,
        is_intermediary=acts_for_many(config.trust, runtime.identity.spiffe_id),
        presence=runtime.pool.presence,
    )
    async with serving as bound:
        own_url = next((url for url in bound if url.startswith("tcp:")), bound[0])
        manager = nsmgr(
            config.name,
            runtime.identity,
            runtime.pool,
            own_url=own_url,
            registry_url=config.registry_url or None,
            forwarder_service=config.forwarder_network_service_name,
            labels={
                "nodeName": config.node_name,
                "podName": config.pod_name,
                "clusterName": config.cluster_name,
            },
            server_policies=config.registry_server_policies,
            client_policies=config.registry_client_policies,
            connection_policies=config.server_policies,
            answer_policies=config.client_policies,
            trust=config.trust,
            excluded_prefixes=config.excluded_prefixes_file,
            service_lifetime=config.service_lifetime,
            registration=config.registration_policy,
            hosts=config.registration_hosts,
            unchecked_namespaces=config.unchecked_namespaces,
            accept_routes=config.accept_routes,
            limits=config.limits,
            orphans=Orphans(config.orphan_lifetime, runtime.identity, runtime.pool.presence, config.trust),
            beyond=_beyond(config, runtime),
        )
        methods.update(manager.methods())
        log.info("ready", listen_on=bound)
        async with Tasks("nsmgr") as tasks:
            tasks.spawn(manager.watch(), name="first look at the registry")
            await runtime.stopping.wait()
    await manager.aclose()


def _beyond(config: NsmgrConfig, runtime: Runtime) -> Beyond | None:
    """Where records of other domains are, if the registry is not to know."""
    if not config.proxy_registry_url:
        return None
    url, policies = config.proxy_registry_url, config.registry_client_policies
    return beyond(url, runtime.pool, policies=policies, service_lifetime=config.service_lifetime, limits=config.limits)


_SERVICES = (
    "networkservice.NetworkService",
    "connection.MonitorConnection",
    "registry.NetworkServiceRegistry",
    "registry.NetworkServiceEndpointRegistry",
)
