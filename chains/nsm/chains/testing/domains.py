"""Several domains in memory, each a mesh with proxies, and the names by which they find each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType

from nsm.chains.composed import RegistrySettings, beyond, nsmgr_proxy, registry_proxy
from nsm.chains.core import NotFound
from nsm.chains.elements.orphans import Orphans
from nsm.chains.policy import Admitted
from nsm.chains.registry.resolve_domain import PROXY, REGISTRY, Located

from .mesh import FORWARDER, MANAGER, Component, Federation, Mesh
from .mesh import REGISTRY as REGISTRY_NAME
from .network import Network

NSMGR_PROXY, REGISTRY_PROXY = "nsmgr-proxy", "registry-proxy"
_PORTS = {REGISTRY_NAME: 5002, NSMGR_PROXY: 5004, REGISTRY_PROXY: 5005}
EVERYTHING = Admitted.parse("*=*")


class Names:
    """What DNS would answer, for all domains of a test: URLs by component and domain."""

    def __init__(self) -> None:
        self.urls: dict[tuple[str, str], list[str]] = {}
        self.lifetime = float("inf")
        self.asked: list[tuple[str, str]] = []

    async def locate(self, component: str, domain: str) -> Located:
        """See `Resolver.locate`."""
        self.asked.append((component, domain))
        if not (urls := self.urls.get((component, domain))):
            raise NotFound(f"domain {domain!r} has no record {component}.{domain}")
        return Located(tuple(urls), self.lifetime)

    def forget(self, component: str, domain: str) -> None:
        """Nothing is remembered."""


class Table(dict[str, str]):
    """A table of addresses or labels that a test fills in."""

    def value(self) -> Mapping[str, str]:
        """The table."""
        return self


class Domain(Mesh):
    """A mesh with a registry proxy and a proxy, that other domains reach under its `name`.

    A `floating` one has only a registry. `addresses` is its table of addresses behind NAT, `labels` are its cluster's.
    """

    keeps_services = True

    def __init__(self, name: str, number: int, names: Names, network: Network, federation: Federation) -> None:
        super().__init__(name, network=network, federation=federation, tunnel_ip=f"10.{number}.0.2")
        self.name, self._host, self._names = name, f"10.{number}.0.1", names
        self.admitted, self.addresses, self.labels = EVERYTHING, Table(), Table()

    def url(self, name: str) -> str:
        """The URL of the component `name`; other domains can reach those of a registry and of proxies."""
        return f"tcp://{self._host}:{_PORTS[name]}" if name in _PORTS else super().url(name)

    def publish(self) -> None:
        """Have the names of its registry and its proxy resolved."""
        for component, part in ((REGISTRY, REGISTRY_NAME), (PROXY, NSMGR_PROXY)):
            if part in self.parts:
                self._names.urls[component, self.name] = [self.url(part)]

    def _registry_settings(self) -> RegistrySettings:
        others = beyond(self.url(NSMGR_PROXY), self.pool(REGISTRY_NAME)) if NSMGR_PROXY in self.parts else None
        return RegistrySettings(trust=self.trust, beyond=others, admitted=self.admitted)

    def _component(self, name: str) -> Component:
        if name == NSMGR_PROXY:
            return nsmgr_proxy(
                f"{NSMGR_PROXY}-{self.name}",
                self.identity(name),
                self.pool(name),
                own_url=self.url(name),
                registry_url=self.url(REGISTRY_NAME),
                registry_proxy_url=self.url(REGISTRY_PROXY),
                addresses=self.addresses,
                labels=self.labels,
                admitted=self.admitted,
                trust=self.trust,
                orphans=Orphans(0.0, self.identity(name), self.pool(name).presence, self.trust),
            )
        if name == REGISTRY_PROXY:
            return registry_proxy(self.identity(name), self.pool(name), self._names, trust=self.trust)
        return super()._component(name)


class Domains:
    """Domains that trust each other and find each other's names.

        async with Domains("one", "two") as (one, two):
            await two.add_endpoint("shop", [..], services=["shop"])
            await one.add_client().request(call("c", "shop@two"))

    Those in `floating` have only a registry.
    """

    def __init__(self, *names: str, floating: Sequence[str] = ()) -> None:
        federation, network = Federation([*names, *floating]), Network()
        self.names = Names()
        self.all: list[Domain] = [
            Domain(name, number, self.names, network, federation) for number, name in enumerate([*names, *floating], 1)
        ]
        for domain in self.all:
            is_floating = domain.name in floating
            proxies = (NSMGR_PROXY, REGISTRY_PROXY)
            domain.parts = (REGISTRY_NAME,) if is_floating else (REGISTRY_NAME, *proxies, MANAGER, FORWARDER)
            domain.publish()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> list[Domain]:
        for domain in self.all:
            await self._stack.enter_async_context(domain)
        return self.all

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
