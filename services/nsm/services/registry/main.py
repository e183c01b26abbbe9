"""The registry: knows the network services and the endpoints that provide them."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed import memory_registry
from nsm.chains.config import Common, duration, not_yet, text, urls, variable
from nsm.chains.logs import log
from nsm.chains.transport import Health, serve
from nsm.services.policies import REGISTRY_SERVER, masks


@dataclass(frozen=True, kw_only=True)
class RegistryConfig(Common):
    """Where to listen, and whom to trust."""

    name: str = variable("registry-memory", text, "the name in errors, logs and traces")
    listen_on: tuple[str, ...] = variable("unix:///listen.on.socket", urls, "where to listen")
    registry_server_policies: tuple[str, ...] = variable(REGISTRY_SERVER, masks, "policies for callers")
    registry_client_policies: str = variable("", text, "policies for proxies' answers; none is asked yet")
    proxy_registry_url: str = not_yet("", "asking other domains through a proxy")
    expire_period: float = variable(
        "1s", duration, "accepted for compatibility; endpoints say themselves when they end"
    )
    endpoint_lifetime: float = variable("1m", duration, "how long an endpoint stays that does not register again")


def main(arguments: list[str]) -> int:
    """Knows network services and their endpoints."""
    return run("registry", RegistryConfig, _serve, arguments)


async def _serve(config: RegistryConfig, runtime: Runtime) -> None:
    store = memory_registry(
        runtime.identity, policies=config.registry_server_policies, lifetime=config.endpoint_lifetime
    )
    health = Health("registry.NetworkServiceRegistry", "registry.NetworkServiceEndpointRegistry")
    methods = {**store.methods(), **health.methods()}
    access = runtime.access(config)
    async with serve(config.listen_on, methods, runtime.identity, name=config.name, access=access) as bound:
        log.info("ready", listen_on=bound)
        await runtime.stopping.wait()
    await store.aclose()
