"""Matching of endpoints, services and connections by selectors, queries and monitors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nsm.apis.connection import Connection, MonitorScopeSelector, PathSegment
from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint

from .templates import compile_template

Labels = Mapping[str, str]


def is_subset(labels: Labels, selector: Labels, values: Labels) -> bool:
    """Whether `labels` has everything in `selector`; the selector's values may be templates over `values`."""
    return _has(labels, _rendered(selector, values))


def differences(labels: Labels, selector: Labels, values: Labels) -> list[tuple[str, str, str]]:
    """What keeps `labels` from having everything in `selector`: name, required value, and actual value of each label.

    The actual value is empty if the label is missing.
    """
    wanted = _rendered(selector, values)
    return [
        (key, rendered, labels.get(key, ""))
        for key, written, rendered in wanted
        if not _has(labels, [(key, written, rendered)])
    ]


_Wanted = Sequence[tuple[str, str, str]]
"""A label's name, the value that a selector requires as written, and as rendered."""


def _rendered(selector: Labels, values: Labels) -> _Wanted:
    """The requirements of a selector, with its templates rendered once, for comparison with many labels."""
    return [(key, wanted, _render(wanted, values)) for key, wanted in selector.items()]


def _render(wanted: str, values: Labels) -> str:
    template = compile_template(wanted)
    return wanted if template is None else template(values)


def _has(labels: Labels, wanted: _Wanted) -> bool:
    if len(labels) < len(wanted):
        return False
    return all(labels.get(key, "") in (written, rendered) for key, written, rendered in wanted)


def labels_of(endpoint: NetworkServiceEndpoint, service: str) -> Labels:
    """The labels that `endpoint` has for one of its services."""
    labels = endpoint.network_service_labels.get(service)
    return labels.labels if labels is not None else {}


def match_endpoints(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> list[NetworkServiceEndpoint]:
    """The endpoints of `service` for a client with the labels `client`, best first.

    Without matches, all endpoints fit. The first match whose source selector fits decides; one with `fallthrough`
    that selects no endpoint is skipped. A match with metadata and no routes selects all endpoints.
    """
    return [endpoint for _, group in _destinations(client, service, endpoints) for endpoint in group]


def weigh_endpoints(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> list[tuple[NetworkServiceEndpoint, int]]:
    """The endpoints of `match_endpoints`, each once, with its share of the client's calls.

    A destination's share is given by its weight, and its endpoints divide it equally. If a match sets no weights,
    its endpoints get equal shares; otherwise a destination of weight 0 gets no calls, and its endpoints are left out.
    """
    return next(weigh_in_turn(client, service, endpoints), [])


def weigh_in_turn(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> Iterator[list[tuple[NetworkServiceEndpoint, int]]]:
    """What `weigh_endpoints` returns; if the match has `fallthrough`, then what it would without that match; and so on.

    The later ones are for a client that can reach no endpoint of those before.
    """
    return (_shares(destinations) for _, destinations in _decisions(client, service, endpoints))


def _shares(destinations: Sequence[_Destination]) -> list[tuple[NetworkServiceEndpoint, int]]:
    if not any(weight for weight, _ in destinations):
        return [(endpoint, 1) for endpoint in {e.name: e for _, group in destinations for e in group}.values()]
    used = [(weight, group) for weight, group in destinations if weight and group]
    parts = math.lcm(*(len(group) for _, group in used))
    shares: dict[str, tuple[NetworkServiceEndpoint, int]] = {}
    for weight, group in used:
        for endpoint in group:
            _, share = shares.get(endpoint.name, (endpoint, 0))
            shares[endpoint.name] = endpoint, share + weight * parts // len(group)
    return list(shares.values())


_Destination = tuple[int, Sequence[NetworkServiceEndpoint]]
"""A weight, and the endpoints that share it."""


def deciding_match(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> Match | None:
    """The match that decides for a client with the labels `client`, as described at `match_endpoints`."""
    return next(_decisions(client, service, endpoints), (None, ()))[0]


def _destinations(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> Sequence[_Destination]:
    """The destinations of a service for a client, as described at `match_endpoints`."""
    return next(_decisions(client, service, endpoints), (None, ()))[1]


def _decisions(
    client: Labels, service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> Iterator[tuple[Match | None, Sequence[_Destination]]]:
    """Each match that may decide, and its destinations: one that leads somewhere; the last one has no `fallthrough`."""
    if not service.matches:
        yield None, [(0, endpoints)]
    for match in service.matches:
        if not is_subset(client, match.source_selector, client):
            continue
        found = _routed(client, service.name, match, endpoints)
        leads_nowhere = not any(group for _, group in found)
        if match.fallthrough and leads_nowhere:
            continue
        is_open = match.metadata is not None and not match.routes and leads_nowhere
        yield match, [(0, endpoints)] if is_open else found
        if not match.fallthrough:
            return


def _routed(
    client: Labels, service: str, match: Match, endpoints: Sequence[NetworkServiceEndpoint]
) -> list[_Destination]:
    def selected(wanted: _Wanted) -> list[NetworkServiceEndpoint]:
        return [each for each in endpoints if _has(labels_of(each, service), wanted)]

    return [(route.weight, selected(_rendered(route.destination_selector, client))) for route in match.routes]


def service_matches(query: NetworkService, service: NetworkService) -> bool:
    """Whether a Find of services with `query` returns `service`."""
    return (
        query.name in ("", service.name)
        and query.payload in ("", service.payload)
        and (not query.matches or query.matches == service.matches)
    )


def endpoint_matches(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    """Whether a Find of endpoints with `query` returns `endpoint`."""
    return (
        query.name in ("", endpoint.name)
        and query.url in endpoint.url
        and set(query.network_service_names) <= set(endpoint.network_service_names)
        and _same_moment(query, endpoint)
        and _has_labels(query, endpoint)
    )


def _same_moment(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    wanted, is_at = query.expiration_time, endpoint.expiration_time
    return wanted is None or (is_at is not None and wanted.seconds == is_at.seconds)


def _has_labels(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    for service, wanted in query.network_service_labels.items():
        has = endpoint.network_service_labels.get(service)
        if has is None or any(has.labels.get(key) != value for key, value in wanted.labels.items()):
            return False
    return True


def selects(selector: MonitorScopeSelector, connection: Connection) -> bool:
    """Whether a monitor with `selector` receives the events of `connection`.

    Its services must contain the connection's, and its segments must be a contiguous part of the path; fields that a
    segment of the selector leaves empty are not compared.
    """
    if selector.network_services and connection.network_service not in selector.network_services:
        return False
    wanted = selector.path_segments
    segments = connection.path.path_segments if connection.path is not None else []
    if not wanted:
        return True
    starts = range(len(segments) - len(wanted) + 1)
    return any(_all_fit(wanted, segments[start : start + len(wanted)]) for start in starts)


def _all_fit(wanted: Iterable[PathSegment], segments: Iterable[PathSegment]) -> bool:
    return all(
        one.name in ("", other.name) and one.id in ("", other.id) and one.token in ("", other.token)
        for one, other in zip(wanted, segments, strict=True)
    )
