"""Collects the prefixes from a cluster's objects."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from nsm.chains.config.watched_file import PartlyRead
from nsm.chains.core import Backoff, MeshError
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network
from nsm.kube import CONFIG_MAPS, NODES, SERVICES, Api, Key, Object, ObjectMissing, Reflector, Resource, key_of

from .sources import merged, of_kubeadm, of_node, of_service, of_service_cidr, of_user

_KUBEADM = "kube-system", "kubeadm-config"
_SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)


class Collector:
    """Watches a cluster's nodes, services, kubeadm's ConfigMap and that of the user; an async context manager.

    ServiceCIDRs too where the API server has them. `on_change` is called when something may have changed. `before` is
    what was excluded at the start: it stays in force while an object from that time cannot be read.
    """

    def __init__(
        self,
        api: Api,
        *,
        always: Iterable[Network],
        before: Iterable[Network],
        user: Key,
        user_key: str,
        on_change: Callable[[], None],
    ) -> None:
        self._api, self._always, self._before, self._on_change = api, list(always), list(before), on_change
        self._sources = [
            _Source(Reflector(api, NODES), of_node),
            _Source(Reflector(api, SERVICES), of_service),
            _Source(_one(api, _KUBEADM), of_kubeadm),
            _Source(_one(api, user), partial(of_user, key=user_key)),
        ]
        self._running = AsyncExitStack()

    async def synced(self) -> None:
        """Wait until all objects have been seen once: missing prefixes would do harm."""
        await asyncio.gather(*[source.reflector.synced() for source in self._sources])

    def prefixes(self) -> tuple[str, ...]:
        """The prefixes to exclude now."""
        networks = [source.networks() for source in self._sources]
        before = self._before if any(source.is_unknown for source in self._sources) else []
        return merged(itertools.chain(self._always, before, *networks))

    async def __aenter__(self) -> Collector:
        if await _has(self._api, _SERVICE_CIDRS):
            self._sources.append(_Source(Reflector(self._api, _SERVICE_CIDRS), of_service_cidr))
        for source in self._sources:
            source.reflector.on_change(lambda _change: self._on_change())
            await self._running.enter_async_context(source.reflector)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._running.aclose()


def _one(api: Api, key: Key) -> Reflector:
    namespace, name = key
    return Reflector(api, CONFIG_MAPS, namespace, fields=f"metadata.name={name}")


async def _has(api: Api, resource: Resource) -> bool:
    """Whether the API server knows `resource`; retried until it responds. Each error is logged once."""
    waits, told = Backoff(), ""
    while True:
        try:
            await api.list(resource)
        except ObjectMissing:
            return False
        except MeshError as error:
            if str(error) != told:
                told = str(error)
                log.warning("cannot start", error=told)
            await asyncio.sleep(waits.next())
        else:
            return True


@dataclass(frozen=True, slots=True)
class _Seen:
    """An object, its prefixes, and whether any version of it could be fully parsed."""

    object: Object | None = None
    networks: tuple[Network, ...] = ()
    is_known: bool = False


class _Source:
    """The prefixes from objects of one kind. Parse errors are logged once; the previous prefixes stay in force."""

    def __init__(self, reflector: Reflector, read: Callable[[Object], list[Network]]) -> None:
        self.reflector, self._read = reflector, read
        self._seen: dict[Key, _Seen] = {}

    def networks(self) -> list[Network]:
        """The prefixes of all its objects."""
        self._seen = {key: self._look(key, found) for key, found in self.reflector.objects.items()}
        return [network for seen in self._seen.values() for network in seen.networks]

    @property
    def is_unknown(self) -> bool:
        """Whether one of its objects could never be fully parsed."""
        return any(not seen.is_known for seen in self._seen.values())

    def _look(self, key: Key, found: Object) -> _Seen:
        before = self._seen.get(key, _Seen())
        if found is before.object:
            return before
        try:
            return _Seen(found, tuple(self._read(found)), is_known=True)
        except PartlyRead as partly:
            self._tell(found, "a part of it cannot be parsed; the rest is in force", partly)
            return _Seen(found, tuple(dict.fromkeys([*partly.value, *before.networks])), before.is_known)
        except ValueError as error:
            self._tell(found, "it cannot be parsed; its previous content stays in force", error)
            return _Seen(found, before.networks, before.is_known)

    def _tell(self, found: Object, what: str, error: ValueError) -> None:
        where = "/".join(filter(None, key_of(found)))
        log.warning(what, kind=self.reflector.resource.kind, name=where, error=str(error))
