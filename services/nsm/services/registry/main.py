"""The registry: stores network services and the endpoints that provide them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed.beyond import Beyond, beyond
from nsm.chains.composed.registry import Registry, RegistrySettings
from nsm.chains.config import duration, host_and_port, text, url, urls, variable
from nsm.chains.logs import log
from nsm.chains.policy import Admitting, RegistryClientPolicies, RegistryServerPolicies, Trusting, acts_for_many
from nsm.chains.transport import Health, serve

from .opened import open_registry
from .store_url import StoreUrl, store_url


@dataclass(frozen=True, kw_only=True)
class RegistryConfig(RegistryServerPolicies, RegistryClientPolicies, Admitting, Trusting):
    """Where to listen, whom to trust, and where to store records."""

    name: str = variable("registry-memory", text, "the name in errors, logs and traces")
    listen_on: tuple[str, ...] = variable("unix:///listen.on.socket", urls, "where to listen")
    store: StoreUrl = variable(
        "memory:",
        store_url,
        "where records are stored: `memory:`, `sqlite:///PATH`, `etcd://HOST:PORT[,HOST:PORT]`, or `k8s:NAMESPACE` for "
        "custom resources of a cluster",
    )
    namespace: str = variable(
        "", text, "namespace of a store `k8s:` that names none; empty: the pod's, or the kubeconfig's"
    )
    kubeconfig: str = variable(
        "",
        text,
        "kubeconfig, or `http://host:port`, for a store `k8s:`; empty: the pod's service account",
        env="KUBECONFIG",
    )
    proxy_registry_url: str = variable(
        "", url, "the proxy through which services of other domains, `service@domain`, are found; empty: none"
    )
    prometheus_listen_on: tuple[str, int] = variable(
        ":8083", host_and_port, "where to serve metrics; another port than a forwarder's, which may be on the same host"
    )
    expire_period: float = variable("1s", duration, "accepted for compatibility; endpoints set their own expiry")
    endpoint_lifetime: float = variable("1m", duration, "how long an endpoint stays unless registered again")
    service_lifetime: float = variable(
        "24h", duration, "how long a service stays in memory without an endpoint, unless registered again; 0: forever"
    )


def main(arguments: list[str]) -> int:
    """Stores network services and their endpoints."""
    return run("registry", RegistryConfig, _serve, arguments)


async def _serve(config: RegistryConfig, runtime: Runtime) -> None:
    health = Health("registry.NetworkServiceRegistry", "registry.NetworkServiceEndpointRegistry")
    access = runtime.access(config)
    async with AsyncExitStack() as stack:
        registry = await runtime.unless_stopped(stack.enter_async_context(_registry(config, runtime)))
        methods = {**registry.methods(), **health.methods()}
        serving = serve(
            config.listen_on,
            methods,
            runtime.identity,
            name=config.name,
            access=access,
            limits=config.limits,
            takes_descriptors=False,
            is_intermediary=acts_for_many(config.trust, runtime.identity.spiffe_id),
        )
        async with serving as bound:
            log.info("ready", listen_on=bound)
            await runtime.stopping.wait()


@asynccontextmanager
async def _registry(config: RegistryConfig, runtime: Runtime) -> AsyncIterator[Registry]:
    settings = RegistrySettings(
        policies=config.registry_server_policies,
        lifetime=config.endpoint_lifetime,
        service_lifetime=config.service_lifetime,
        trust=config.trust,
        registration=config.registration_policy,
        hosts=config.registration_hosts,
        limits=config.limits,
        beyond=_beyond(config, runtime),
        admitted=config.admitted_domains,
    )
    opened = open_registry(
        runtime.identity,
        settings,
        config.store,
        namespace=config.namespace,
        kubeconfig=config.kubeconfig,
        name=config.name,
    )
    async with opened as registry:
        yield registry


def _beyond(config: RegistryConfig, runtime: Runtime) -> Beyond | None:
    """Where records of other domains are."""
    if not config.proxy_registry_url:
        return None
    return beyond(
        config.proxy_registry_url,
        runtime.pool,
        policies=config.registry_client_policies,
        lifetime=config.endpoint_lifetime,
        service_lifetime=config.service_lifetime,
        limits=config.limits,
    )
