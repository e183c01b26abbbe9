"""A mesh in memory: the real chains of a registry, a manager and a forwarder, without sockets and without a kernel."""

from __future__ import annotations

import datetime
import ipaddress
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Protocol

from nsm.apis.payloads import IP
from nsm.apis.registry import Match, NetworkService
from nsm.chains.composed import (
    Endpoint,
    Nsmgr,
    NsmgrProxy,
    RegistrySettings,
    client,
    endpoint,
    endpoints_client,
    memory_registry,
    nsmgr,
    registry_at,
    services_client,
    signs_in,
)
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.core import Begin, Chain, Element, RegistryCall, merge_with_returned
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.orphans import Orphans
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.forwarding.vxlan import vxlan
from nsm.chains.forwarding.wireguard import wireguard
from nsm.chains.identity import Authority, Identity
from nsm.chains.policy import IdPatterns, Trust
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.transport import Methods, RemoteNetworkService

from .calls import endpoint_record
from .dataplane import FakeDataplane
from .identity import identity_of
from .network import MemoryPool, Network

REGISTRY, MANAGER, FORWARDER = "registry", "nsmgr", "forwarder"


INTERMEDIARIES = (REGISTRY, MANAGER, FORWARDER, f"{FORWARDER}-*", "nsmgr-proxy", "registry-proxy")


class Component(Protocol):
    """A part of a mesh that serves APIs."""

    def methods(self) -> Methods:
        """Its APIs."""
        ...

    async def aclose(self) -> None:
        """Release what it holds."""
        ...


class Federation:
    """Trust domains that know each other's authorities, and whose intermediaries may vouch for clients."""

    def __init__(self, trust_domains: Sequence[str]) -> None:
        self.authorities = {each: Authority.create(each) for each in trust_domains}

    def trust_in(self, trust_domain: str) -> Trust:
        """What a component of `trust_domain` trusts."""
        vouch = [f"spiffe://{domain}/{each}" for domain in self.authorities for each in INTERMEDIARIES]
        return Trust(intermediaries=IdPatterns(vouch).within(trust_domain))


class Mesh:
    """One node: a registry, a manager, and a forwarder whose wires are in memory. You add endpoints and clients.

        async with Mesh() as mesh:
            await mesh.add_endpoint("shop", [Point2PointIpam(["10.8.0.0/24"]), ..], services=["shop"])
            client = mesh.add_client()
            connection = await client.request(call("c", "shop"))

    Everything else is as in a real mesh: paths, tokens, policies, labels, descriptors of network namespaces. It works
    with virtual and with real time.
    """

    parts: Sequence[str] = (REGISTRY, MANAGER, FORWARDER)
    """What it starts, in this order."""
    keeps_services = False
    """Whether endpoints register their services again when a registry has lost them."""

    def __init__(
        self,
        trust_domain: str = "test.mesh",
        *,
        network: Network | None = None,
        federation: Federation | None = None,
        tunnel_ip: str = "",
        observers: Sequence[Element] = (),
        orphan_lifetime: float = 0.0,
        token_lifetime: float = 600.0,
    ) -> None:
        """With an `orphan_lifetime` components keep connections whose caller is away for so many seconds.

        `observers` stand in the forwarder before the element that makes wires: they see what the endpoint answered.
        In a `federation`, whose mesh of each trust domain is on one `network`, components trust those of the others.
        With a `tunnel_ip` the forwarder makes tunnels to other nodes.
        """
        self.observers, self._orphan_lifetime = list(observers), orphan_lifetime
        self._token_lifetime, self._tunnel_ip = token_lifetime, tunnel_ip
        self.network = network if network is not None else Network()
        self._services: set[str] = set()
        self.begins: dict[str, Begin] = {}
        """The store of connections of each component, by name."""
        self.dataplanes: dict[str, FakeDataplane] = {}
        """The wires of each forwarder, by name; a restarted forwarder finds its former ones."""
        self._federation = federation if federation is not None else Federation([trust_domain])
        self._authority = self._federation.authorities[trust_domain]
        self.trust = self._federation.trust_in(trust_domain)
        """Manager and forwarder may vouch for clients, so `call.origin` at an endpoint is the client."""
        self._identities: dict[str, Identity] = {}
        self._pools: dict[str, MemoryPool] = {}
        self._stack = AsyncExitStack()
        self._running: dict[str, AsyncExitStack] = {}

    async def __aenter__(self) -> Mesh:
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-"))
        for name in self.parts:
            await self.start(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in reversed(list(self._running.values())):
            await running.aclose()
        await self._stack.aclose()
        for pool in self._pools.values():
            await pool.__aexit__(None, None, None)

    def identity(self, name: str) -> Identity:
        """The identity of the component `name`, always the same one."""
        if name not in self._identities:
            others = [each for each in self._federation.authorities.values() if each is not self._authority]
            workload = name.partition("@")[0]
            self._identities[name] = identity_of(
                self._authority, workload, *others, token_lifetime=self._token_lifetime
            )
        return self._identities[name]

    def pool(self, name: str) -> MemoryPool:
        """The pool of channels of the component `name`."""
        if name not in self._pools:
            self._pools[name] = self.network.pool(self.identity(name))
        return self._pools[name]

    def url(self, name: str) -> str:
        """The URL of the component `name`."""
        return f"unix://{self._folder}/{name}.sock"

    async def add_endpoint(
        self,
        name: str,
        elements: Sequence[Element],
        *,
        services: Sequence[str],
        payload: str = IP,
        **labels: str,
    ) -> Endpoint:
        """Start an endpoint with `elements`, registered for `services` with `labels`."""
        goes_on = any(isinstance(each, Connect) for each in elements)
        server = endpoint(
            name,
            self.identity(name),
            elements,
            trust=self.trust,
            pool=self.pool(name) if goes_on else None,
            orphans=self.orphans(name),
        )
        async with AsyncExitStack() as starting:
            registered = await starting.enter_async_context(services_client(self.url(MANAGER), self.pool(name)))
            for service in services:
                if service not in self._services:
                    await registered.register(RegistryCall(NetworkService(name=service, payload=payload)))
            await self._run(name, server, services, labels)
            if self.keeps_services:
                self._running[name].push_async_exit(starting.pop_all())
        return server

    async def add_service(self, name: str, matches: Sequence[Match], *, payload: str = IP) -> None:
        """Register a service with `matches`, which its endpoints then do not register."""
        self._services.add(name)
        await self._register("operator", NetworkService(name=name, payload=payload, matches=list(matches)))

    async def _register(self, who: str, service: NetworkService) -> None:
        async with services_client(self.url(MANAGER), self.pool(who)) as registered:
            await registered.register(RegistryCall(service))

    def orphans(self, name: str) -> Orphans:
        """For how long the component `name` keeps connections whose caller is away."""
        orphans = Orphans(self._orphan_lifetime, self.identity(name), self.pool(name).presence, self.trust)
        signs = signs_in(registry_at(self.url(MANAGER), self.pool(name)))
        orphans.looks_by((lambda _manager: signs(FORWARDER)) if name == FORWARDER else signs)
        return orphans

    def renew(self, *names: str, lifetime: float = 2 * 24 * 3600.0) -> None:
        """Give components a new SVID that lives for so many seconds from now; without names all that there are."""
        for name in names or tuple(self._identities):
            identity = self._identities[name]
            svid = self._authority.issue(identity.spiffe_id, lifetime=datetime.timedelta(seconds=lifetime))
            identity.update(svid, identity.bundles)

    async def start(self, name: str) -> None:
        """Start the registry, the manager or the forwarder again, which was removed: it knows nothing of before."""
        if name == FORWARDER:
            await self.add_forwarder(FORWARDER)
            return
        async with AsyncExitStack() as starting:
            component = self._component(name)
            starting.push_async_callback(component.aclose)
            listening = self._serve(name, component.methods())
            await starting.enter_async_context(listening)
            if isinstance(component, Nsmgr | NsmgrProxy):
                self.begins[name] = component.connections.begin
            self._running[name] = starting.pop_all()

    async def remove(self, name: str) -> None:
        """Have the component `name` die: it does not unregister, and what it holds is gone."""
        self.begins.pop(name, None)
        await self._running.pop(name).aclose()

    def _component(self, name: str) -> Component:
        """The component `name`, new; a subclass may have more of them."""
        if name == REGISTRY:
            return memory_registry(self.identity(REGISTRY), self._registry_settings())
        return nsmgr(
            MANAGER,
            self.identity(MANAGER),
            self.pool(MANAGER),
            own_url=self.url(MANAGER),
            registry_url=self.url(REGISTRY),
            trust=self.trust,
            orphans=self.orphans(MANAGER),
        )

    def _registry_settings(self) -> RegistrySettings:
        return RegistrySettings(trust=self.trust)

    def _serve(self, name: str, methods: Methods) -> AbstractAsyncContextManager[str]:
        presence = self.pool(name).presence
        return self.network.serve(self.url(name), methods, self.identity(name), name=name, presence=presence)

    async def add_forwarder(self, name: str) -> None:
        """Start one more forwarder on the node; `name` begins with ``forwarder-``."""
        former = self.dataplanes.get(name)
        plane = self.dataplanes[name] = FakeDataplane() if former is None else former.successor()
        address = ipaddress.ip_address(self._tunnel_ip) if self._tunnel_ip else None
        tunnels = [vxlan(address, plane, self.trust), wireguard(address, plane, self.trust)] if address else []
        supported = [kernel(), *tunnels]
        chain = forwarder(
            name,
            self.identity(name),
            self.pool(name),
            plane,
            supported,
            nsmgr_url=self.url(MANAGER),
            watchers=self.observers,
            trust=self.trust,
            orphans=self.orphans(name),
        )
        await self._run(name, chain, [FORWARDER], {"p2p": "true"})

    def add_client(
        self,
        name: str = "client",
        elements: Sequence[Element] = (),
        *,
        refresh: bool = False,
        heal: Element | None = None,
    ) -> Chain:
        """A client; with `refresh` it keeps its connections alive, with `heal` it restores them.

        `elements` are its own part, besides a kernel's.
        """
        self.begins[name] = Begin(merge=merge_with_returned)
        chain = client(
            name,
            [*elements, KernelClient(), SendDescriptors()],
            RemoteNetworkService(self.pool(name)),
            url=self.url(MANAGER),
            refresh=refresh,
            heal=heal,
            begin=self.begins[name],
        )
        self._stack.push_async_callback(chain.aclose)
        return chain

    def connections(self) -> dict[str, int]:
        """The number of connections of each component that has any, for leak tests."""
        return {name: len(begin) for name, begin in self.begins.items() if len(begin)}

    async def _run(self, name: str, server: Endpoint, services: Sequence[str], labels: dict[str, str]) -> None:
        async with AsyncExitStack() as starting:
            await starting.enter_async_context(server)
            listening = self._serve(name, server.methods())
            await starting.enter_async_context(listening)
            registration = endpoints_client(self.url(MANAGER), self.pool(name), [SendUrl()])
            await starting.enter_async_context(registration)
            await registration.register(RegistryCall(endpoint_record(name, *services, url=self.url(name), **labels)))
            self.begins[name], self._running[name] = server.begin, starting.pop_all()
