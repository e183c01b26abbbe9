"""What registries have: services, endpoints and forwarders, and where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.model.domains import join, split

from .directory import Directory
from .inventory import endpoint_of, same_but_time, service_of
from .journal import Journal
from .model import ChangeKind, Component, ComponentState, Endpoint, EventKind, Kind, Service
from .tally import ENDPOINT, NODE, SERVICE, Key, Tally

T = TypeVar("T")


class Records:
    """Services, endpoints and forwarders, by their names and domains; what has other counts is added to `dirty`."""

    def __init__(self, directory: Directory, tally: Tally, journal: Journal, dirty: set[Key]) -> None:
        self._directory, self._tally, self._journal, self._dirty = directory, tally, journal, dirty
        self._endpoints: dict[str, Endpoint] = {}
        self._forwarders: dict[str, Endpoint] = {}
        self._services: dict[str, Service] = {}
        self._providers: dict[str, dict[str, bool]] = {}
        self._on_node: dict[str, dict[str, Kind]] = {}

    def put_endpoint(self, record: NetworkServiceEndpoint, domain: str = "", *, is_news: bool = True) -> None:
        """A registry has a record of an endpoint or a forwarder."""
        entry = self._directory.learn_record(record, domain)
        endpoint = endpoint_of(record, node=entry.node, domain=entry.domain)
        key, is_forwarder = join(record.name, domain), entry.kind is Kind.FORWARDER
        kept = self._forwarders if is_forwarder else self._endpoints
        former = kept.get(key)
        kept[key] = endpoint
        if former is not None and same_but_time(former, endpoint):
            return
        self._place(entry.kind, former, endpoint)
        if is_forwarder:
            self._journal.publish(ChangeKind.COMPONENT, key, component=_forwarder(endpoint))
        else:
            self._journal.publish(ChangeKind.ENDPOINT, key, endpoint=self._with_counts(key, endpoint))
        if is_news and former is None:
            told = f"{record.name} provides {', '.join(endpoint.services)}"
            self._journal.note(EventKind.ENDPOINT_REGISTERED, told, component=split(record.name)[0])

    def drop_endpoint(self, name: str, domain: str = "") -> None:
        """A registry has no record of an endpoint or a forwarder any longer."""
        key = join(name, domain)
        for kept, kind, gone in (
            (self._endpoints, Kind.ENDPOINT, ChangeKind.ENDPOINT_GONE),
            (self._forwarders, Kind.FORWARDER, ChangeKind.COMPONENT_GONE),
        ):
            if (former := kept.pop(key, None)) is not None:
                self._directory.forget_record(name)
                self._place(kind, former, None)
                self._journal.publish(gone, key)
                told = f"{name} is not registered any longer"
                self._journal.note(EventKind.ENDPOINT_GONE, told, component=split(name)[0])

    def put_service(self, record: NetworkService, domain: str = "", *, is_news: bool = True) -> None:
        """A registry has a record of a service."""
        key, service = join(record.name, domain), service_of(record, domain=domain)
        former = self._services.get(key)
        self._services[key] = service
        if service != former:
            self._journal.publish(ChangeKind.SERVICE, key, service=self._counted(key, service))
            if is_news:
                what = "is described anew" if former is not None else "exists now"
                self._journal.note(EventKind.SERVICE_CHANGED, f"the service {record.name} {what}")

    def drop_service(self, name: str, domain: str = "") -> None:
        """A registry has no record of a service any longer."""
        key = join(name, domain)
        if self._services.pop(key, None) is not None:
            self._journal.publish(ChangeKind.SERVICE_GONE, key)
            self._journal.note(EventKind.SERVICE_GONE, f"the service {name} does not exist any longer")

    def endpoint_names(self, domain: str) -> set[str]:
        """The names of endpoints and forwarders of a domain's registry."""
        known = [*self._endpoints.items(), *self._forwarders.items()]
        return {each.name for key, each in known if key == join(each.name, domain)}

    def service_names(self, domain: str) -> set[str]:
        """The names of services of a domain's registry."""
        return {each.name for each in self._services.values() if each.domain == domain}

    def urls(self) -> set[str]:
        """The URLs at which forwarders are registered: those of their managers."""
        return {each.url for each in self._forwarders.values()}

    def services(self) -> list[Service]:
        """All services."""
        return [self._counted(key, each) for key, each in sorted(self._services.items())]

    def endpoints(self) -> list[Endpoint]:
        """All endpoints."""
        return [self._with_counts(key, each) for key, each in sorted(self._endpoints.items())]

    def forwarders(self) -> list[Component]:
        """All forwarders."""
        return [_forwarder(each) for _, each in sorted(self._forwarders.items())]

    def on_node(self, node: str, domain: str, kind: Kind) -> list[str]:
        """The names of the endpoints or the forwarders on a node."""
        return sorted(name for name, its in self._on_node.get(join(node, domain), {}).items() if its is kind)

    def publish(self, what: str, key: str) -> None:
        """Publish a service or an endpoint again, if it exists: its counts have changed."""
        if what == SERVICE and key in self._services:
            self._journal.publish(ChangeKind.SERVICE, key, service=self._counted(key, self._services[key]))
        elif what == ENDPOINT and key in self._endpoints:
            self._journal.publish(ChangeKind.ENDPOINT, key, endpoint=self._with_counts(key, self._endpoints[key]))

    def _place(self, kind: Kind, former: Endpoint | None, endpoint: Endpoint | None) -> None:
        """Note which node an endpoint is on, and what it provides."""
        for each, is_there in ((former, False), (endpoint, True)):
            if each is None:
                continue
            node = join(each.node, each.domain)
            _set(self._on_node.setdefault(node, {}), each.name, kind if is_there else None)
            self._dirty.add((NODE, node))
            for name in each.services if kind is Kind.ENDPOINT else ():
                service = join(name, each.domain)
                _set(self._providers.setdefault(service, {}), each.name, is_there or None)
                self._dirty.add((SERVICE, service))

    def _counted(self, key: str, service: Service) -> Service:
        return replace(
            service,
            endpoints=tuple(sorted(self._providers.get(key, ()))),
            wires=self._tally.wires(SERVICE, key),
            down=self._tally.down(SERVICE, key),
        )

    def _with_counts(self, key: str, endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, wires=self._tally.wires(ENDPOINT, key))


def _set(held: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        held.pop(name, None)
    else:
        held[name] = value


def _forwarder(record: Endpoint) -> Component:
    return Component(
        name=record.name,
        kind=Kind.FORWARDER,
        node=record.node,
        domain=record.domain,
        url=record.url,
        identity=record.identity,
        state=ComponentState.REGISTERED,
        since=record.registered,
    )
