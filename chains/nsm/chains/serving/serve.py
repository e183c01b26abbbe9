"""Serves a chain as a registered endpoint, for as long as its process lives."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.component import Runtime, run
from nsm.chains.composed import Endpoint, endpoint, endpoints_client, registry_at, services_client, signs_in
from nsm.chains.core import Backoff, Call, Element, MeshError, Refused, RegistryCall, RegistryHandler
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.end_when_idle import EndWhenIdle
from nsm.chains.elements.former_first import FormerFirst
from nsm.chains.elements.orphans import Orphans
from nsm.chains.logs import log
from nsm.chains.policy import Trust, acts_for_many
from nsm.chains.registry.client_info import RegistryClientInfo
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.registry.end_with_socket import WIRES_ELSEWHERE
from nsm.chains.transport import Health, serve

from .config import ProviderConfig, RegisteredConfig
from .provided import Provided, endpoint_record

P = TypeVar("P", bound=ProviderConfig)

_SERVED = "networkservice.NetworkService", "connection.MonitorConnection"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_REMEDY = "set NSM_REGISTER_SERVICE=false to provide the service as it is registered"


def run_endpoint(command: str, kind: type[P], chain: Callable[[P], Sequence[Element]], arguments: list[str]) -> int:
    """Run the endpoint `command`; `chain` makes its own elements from its configuration. Returns the exit code.

    See `nsm.chains.component.run`.
    """

    async def work(config: P, runtime: Runtime) -> None:
        await serve_endpoint(config, runtime, chain(config))

    return run(command, kind, work, arguments)


async def serve_endpoint(
    config: ProviderConfig,
    runtime: Runtime,
    elements: Sequence[Element],
    *,
    use: Callable[[Call], Awaitable[bool]] | None = None,
) -> None:
    """Serve an endpoint with the given `elements`, registered as configured, until the process is asked to stop.

    NSM_IDLE_TIMEOUT counts connections that are a `use`; None: all of them.
    Raises `MeshError` if it cannot listen, or if the manager permanently refuses its registration.
    """
    trust = config.trust_by(runtime.pool)
    orphans = Orphans(config.orphan_lifetime, runtime.identity, runtime.pool.presence, trust)
    orphans.looks_by(signs_in(registry_at(config.connect_to, runtime.pool)))
    idle = EndWhenIdle(config.idle_timeout, runtime.stopping.set, use=use) if config.idle_timeout else None
    server = endpoint(
        config.name,
        runtime.identity,
        [*([idle] if idle else []), *elements],
        policies=config.server_policies,
        trust=trust,
        pool=runtime.pool if any(isinstance(each, Connect) for each in elements) else None,
        limits=config.limits,
        allowed=config.accept_prefixes,
        orphans=orphans,
    )
    waiting = [each for each in elements if isinstance(each, FormerFirst)]

    async def before_registering() -> None:
        if idle is not None:
            idle.start()
        was_registered = bool(waiting) and await _was_registered(config, runtime)
        for each in waiting:
            each.decide(was_registered=was_registered)

    for each in waiting:
        each.start()
    async with server:
        await serve_registered(
            server,
            config,
            runtime,
            [_marked(each) for each in config.provided()] if waiting else config.provided(),
            trust=trust,
            register_services=config.register_service,
            before_registering=before_registering,
            unregisters=lambda: idle is not None and idle.has_ended,
        )


def _marked(provided: Provided) -> Provided:
    """With the label of endpoints whose wires outlive them: the record tells a later process that it was there."""
    return replace(provided, labels={**provided.labels, WIRES_ELSEWHERE: "true"})


async def serve_registered(
    server: Endpoint,
    config: RegisteredConfig,
    runtime: Runtime,
    provided: Sequence[Provided],
    *,
    trust: Trust | None = None,
    register_services: bool = False,
    before_registering: Callable[[], Coroutine[Any, Any, None]] | None = None,
    unregisters: Callable[[], bool] = lambda: False,
) -> None:
    """Serve `server`, registered for `provided`, until the process is asked to stop; the caller closes its elements.

    The record carries labels that say where the process runs. `trust` defaults to that of `config`.
    `before_registering` runs when it listens already. With `register_services` the services are registered first.
    It unregisters at the end if `config` says so, or `unregisters` does. Raises as `serve_endpoint` does.
    """
    trust = config.trust if trust is None else trust
    async with AsyncExitStack() as stack:
        serving = serve(
            [config.listen_on or f"unix://{stack.enter_context(_folder())}/listen.on"],
            {**server.methods(), **Health(*_SERVED).methods()},
            runtime.identity,
            name=config.name,
            access=runtime.access(config),
            limits=config.limits,
            is_intermediary=acts_for_many(trust, runtime.identity.spiffe_id),
            presence=runtime.pool.presence,
        )
        (public,) = await stack.enter_async_context(serving)
        if before_registering is not None:
            await runtime.unless_stopped(before_registering())
        services = provided if register_services else []
        registered = _registered(config, runtime, endpoint_record(config.name, public, provided), services, unregisters)
        await runtime.unless_stopped(stack.enter_async_context(registered))
        log.info("ready", listen_on=public, services=[each.service for each in provided])
        await runtime.stopping.wait()


async def _was_registered(config: RegisteredConfig, runtime: Runtime) -> bool:
    """Whether there is an endpoint of this name already; asked for until there is an answer."""
    registry, pauses = registry_at(config.connect_to, runtime.pool), Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    tell = log.warning
    while True:
        deadline = asyncio.get_running_loop().time() + config.request_timeout
        query = NetworkServiceEndpoint(name=config.name)
        try:
            async for batch in registry.find(RegistryCall(query, deadline=deadline)):
                if any(one.record.name == config.name and not one.deleted for one in batch):
                    return True
            return False
        except MeshError as error:
            tell("cannot register yet", name=config.name, reason=str(error))
            tell = log.debug  # once
            await asyncio.sleep(pauses.next())


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nse-")


@asynccontextmanager
async def _registered(
    config: RegisteredConfig,
    runtime: Runtime,
    record: NetworkServiceEndpoint,
    services: Sequence[Provided],
    unregisters: Callable[[], bool],
) -> AsyncIterator[None]:
    """Keep `record` and the services registered while the context is open."""
    where = {"nodeName": config.node_name, "podName": config.pod_name, "clusterName": config.cluster_name}
    to, policies, timeout = config.connect_to, config.registry_client_policies, config.request_timeout
    elements = [RegistryClientInfo(where), SendUrl()]
    async with (
        services_client(to, runtime.pool, policies=policies, timeout=timeout) as of_services,
        endpoints_client(to, runtime.pool, elements, policies=policies, timeout=timeout) as of_endpoints,
    ):
        for each in services:
            try:
                await of_services.register(RegistryCall(each.service_record()))
            except Refused as error:
                error.detail = f"{error.detail}; {_REMEDY}"
                raise
        await of_endpoints.register(RegistryCall(record))
        yield
        if config.unregister_itself or unregisters():
            await _unregister(of_endpoints, record.name, timeout)


async def _unregister(endpoints: RegistryHandler[NetworkServiceEndpoint], name: str, timeout: float) -> None:
    """Unregister if there is time; otherwise the registration expires."""
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        await endpoints.unregister(RegistryCall(NetworkServiceEndpoint(name=name), deadline=deadline))
    except MeshError as error:
        log.warning("still registered", error=str(error))
