"""The registry proxy: finds the registries of other domains in DNS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsm.chains.component import Runtime, run
from nsm.chains.composed import registry_proxy
from nsm.chains.config import host_and_port, text, urls, variable
from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.chains.policy import RegistryClientPolicies, RegistryServerPolicies, Trusting, acts_for_many
from nsm.chains.transport import Health, serve

from .servers import ResolvConfServers, Server, dns_servers

if TYPE_CHECKING:
    from .resolver import DnsResolver


@dataclass(frozen=True, kw_only=True)
class RegistryProxyConfig(RegistryServerPolicies, RegistryClientPolicies, Trusting):
    """Where to listen, and which name servers to query."""

    name: str = variable("registry-proxy", text, "the name in errors, logs and traces")
    listen_on: tuple[str, ...] = variable("unix:///listen.on.socket", urls, "where to listen")
    dns_servers: tuple[Server, ...] = variable(
        "", dns_servers, "name servers that know other domains: ip or ip:port,..; empty: those of /etc/resolv.conf"
    )
    prometheus_listen_on: tuple[str, int] = variable(
        ":8085", host_and_port, "where to serve metrics; another port than others' on the same host"
    )


def main(arguments: list[str]) -> int:
    """Finds the registries of other domains in DNS."""
    return run("registry-proxy", RegistryProxyConfig, serve_registry_proxy, arguments)


async def serve_registry_proxy(config: RegistryProxyConfig, runtime: Runtime) -> None:
    """Serve until the process is asked to stop. Raises `MeshError` if it cannot listen, or without the DNS library."""
    health = Health("registry.NetworkServiceRegistry", "registry.NetworkServiceEndpointRegistry")
    proxy = registry_proxy(
        runtime.identity,
        runtime.pool,
        _resolver(config.dns_servers),
        server_policies=config.registry_server_policies,
        client_policies=config.registry_client_policies,
        trust=config.trust,
        hosts=config.registration_hosts,
        limits=config.limits,
    )
    serving = serve(
        config.listen_on,
        {**proxy.methods(), **health.methods()},
        runtime.identity,
        name=config.name,
        access=runtime.access(config),
        limits=config.limits,
        takes_descriptors=False,
        is_intermediary=acts_for_many(config.trust, runtime.identity.spiffe_id),
    )
    async with serving as bound:
        log.info("ready", listen_on=bound)
        await runtime.stopping.wait()
    await proxy.aclose()


def _resolver(servers: tuple[Server, ...]) -> DnsResolver:
    try:
        from .resolver import DnsResolver  # noqa: PLC0415 - only if it runs
    except ImportError as error:
        raise MeshError(f"nsm registry-proxy needs the extra nsm-services[dns]: {error}") from error
    return DnsResolver((lambda: servers) if servers else ResolvConfServers())
