"""The variables of a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nsm.chains.config import Common, duration, flag, host_and_port, items, number, text, url, urls, variable


def managers(value: str) -> Mapping[str, str]:
    """Managers as `node=url` or `url`, comma separated: the node of each URL, or nothing. Raises ValueError."""
    found: dict[str, str] = {}
    for item in items(value):
        node, equals, target = item.partition("=")
        target = url(target if equals else item)
        if target in found:
            raise ValueError(f"{target} is named twice")
        found[target] = node if equals else ""
    return found


@dataclass(frozen=True)
class OtherDomain:
    """A domain in which the view has an identity of its own."""

    workload_api: str
    registry_url: str
    managers: Mapping[str, str]


def other_domains(value: str) -> tuple[OtherDomain, ...]:
    """Domains as `workload-api|registry|manager|..`, comma separated. Raises ValueError."""
    found = []
    for item in items(value):
        parts = item.split("|")
        if len(parts) < 2:
            raise ValueError(f"{item!r} has no registry; expected workload-api|registry|node=manager|..")
        found.append(OtherDomain(parts[0], url(parts[1]), managers(",".join(parts[2:]))))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Common):
    """What to watch, where to listen, and who may read."""

    name: str = variable("view", text, "the name in logs and traces")
    listen_on: tuple[str, ...] = variable(
        "tcp://127.0.0.1:7410", urls, "where to serve HTTP: tcp://host:port or unix:///path, several with commas"
    )
    next_free_port: bool = variable("false", flag, "listen on a following port if that of NSM_LISTEN_ON is taken")
    registry_url: str = variable("tcp://registry:5002", url, "the registry whose services and endpoints are shown")
    managers: Mapping[str, str] = variable(
        "", managers, "managers to watch, as node=url,..; empty: those of all registered forwarders"
    )
    other_domains: tuple[OtherDomain, ...] = variable(
        "",
        other_domains,
        "further domains, each with a Workload API: workload-api|registry|node=manager|.., several with commas",
    )
    forwarder_network_service_name: str = variable("forwarder", text, "the service that forwarders register as")
    token_file: str = variable(
        "",
        text,
        "file with the token that readers by TCP need, made if missing; empty: only this machine may read",
    )
    cert_file: str = variable("", text, "certificate for HTTPS; empty: plain HTTP")
    key_file: str = variable("", text, "key of that certificate")
    dashboard_origin: str = variable(
        "", text, "the page of upstream's dashboard that may read /nodes and /edges, such as http://localhost:3000"
    )
    history: float = variable("6h", duration, "how long events are kept")
    most_events: int = variable("20000", number, "how many events are kept at most")
    prometheus_listen_on: tuple[str, int] = variable(
        ":8083", host_and_port, "where to serve metrics besides /metrics of the view itself"
    )

    def misfits(self) -> Iterator[str]:
        """Files that must be set together, and nothing to watch."""
        yield from super().misfits()
        if bool(self.cert_file) != bool(self.key_file):
            yield "NSM_CERT_FILE and NSM_KEY_FILE go together: set both or neither"
        if not self.registry_url and not self.managers:
            yield "NSM_REGISTRY_URL and NSM_MANAGERS are both empty: there is nothing to watch"
        if self.most_events < 1:
            yield f"NSM_MOST_EVENTS={self.most_events}: expected at least 1"
