"""The proxy of a domain: connections to and from other domains pass it."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed import nsmgr_proxy
from nsm.chains.config import duration, host_and_port, text, url, urls, variable
from nsm.chains.config.watched_file import WatchedFile
from nsm.chains.elements.orphans import Keeping, Orphans
from nsm.chains.logs import log
from nsm.chains.model.address_map import parse_address_map, parse_labels
from nsm.chains.policy import (
    Admitting,
    ClientPolicies,
    RegistryClientPolicies,
    RegistryServerPolicies,
    ServerPolicies,
    Trusting,
    acts_for_many,
)
from nsm.chains.transport import Health, Method, serve

MAP_IP_FILE, CLUSTER_INFO_FILE = "map-ip.yaml", "/etc/clusterinfo/config.yaml"


@dataclass(frozen=True, kw_only=True)
class NsmgrProxyConfig(
    ServerPolicies,
    ClientPolicies,
    RegistryServerPolicies,
    RegistryClientPolicies,
    Admitting,
    Trusting,
    Keeping,
):
    """Where to listen, where its own domain's registry is and where those of others are found."""

    name: str = variable("nsmgr-proxy", text, "the name of this proxy's path segment; unique in all domains")
    listen_on: tuple[str, ...] = variable(
        "unix:///listen.on.socket", urls, "where to listen; the first tcp:// is published in other domains"
    )
    registry_url: str = variable("tcp://localhost:5002", url, "the registry of this domain")
    registry_proxy_url: str = variable("tcp://localhost:5005", url, "the registry proxy, which finds other domains")
    map_ip_file_path: str = variable(
        MAP_IP_FILE, text, "YAML, inside: outside: addresses of this domain's nodes as other domains reach them"
    )
    cluster_info_file: str = variable(
        CLUSTER_INFO_FILE, text, "YAML, name: value: labels that connections and endpoints of this domain get"
    )
    prometheus_listen_on: tuple[str, int] = variable(
        ":8084", host_and_port, "where to serve metrics; another port than others' on the same host"
    )
    dial_timeout: float = variable("750ms", duration, "timeout for connecting to a peer")


def main(arguments: list[str]) -> int:
    """The proxy of a domain: connections to and from other domains pass it."""
    return run("nsmgr-proxy", NsmgrProxyConfig, serve_proxy, arguments)


async def serve_proxy(config: NsmgrProxyConfig, runtime: Runtime) -> None:
    """Serve until the process is asked to stop. Raises `MeshError` if it cannot listen."""
    methods: dict[str, Method] = dict(Health(*_SERVICES).methods())
    serving = serve(
        config.listen_on,
        methods,
        runtime.identity,
        name=config.name,
        access=runtime.access(config),
        limits=config.limits,
        takes_descriptors=False,
        is_intermediary=acts_for_many(config.trust, runtime.identity.spiffe_id),
        presence=runtime.pool.presence,
    )
    async with serving as bound:
        proxy = nsmgr_proxy(
            config.name,
            runtime.identity,
            runtime.pool,
            own_url=next((url for url in bound if url.startswith("tcp:")), bound[0]),
            registry_url=config.registry_url,
            registry_proxy_url=config.registry_proxy_url,
            addresses=WatchedFile(config.map_ip_file_path, parse_address_map, usual=MAP_IP_FILE, whole=True),
            labels=WatchedFile(config.cluster_info_file, parse_labels, usual=CLUSTER_INFO_FILE),
            admitted=config.admitted_domains,
            server_policies=config.registry_server_policies,
            client_policies=config.registry_client_policies,
            connection_policies=config.server_policies,
            answer_policies=config.client_policies,
            trust=config.trust,
            hosts=config.registration_hosts,
            limits=config.limits,
            orphans=Orphans(config.orphan_lifetime, runtime.identity, runtime.pool.presence, config.trust),
        )
        methods.update(proxy.methods())
        log.info("ready", listen_on=bound)
        await runtime.stopping.wait()
    await proxy.aclose()


_SERVICES = (
    "networkservice.NetworkService",
    "connection.MonitorConnection",
    "registry.NetworkServiceRegistry",
    "registry.NetworkServiceEndpointRegistry",
)
