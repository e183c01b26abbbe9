"""Rules for the texts of a record: names, labels, templates and URLs, as everywhere else in the mesh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint

from .values import FREE, KEY, NAME, URL, Rule, check

_Text = tuple[str, Rule, str]
"""A text's field, its rule, and the text."""


def check_record(record: object) -> None:
    """Raise `InvalidRequest` that names the invalid field of a service or an endpoint."""
    texts = _of_service(record) if isinstance(record, NetworkService) else _of_endpoint(record)
    for where, rule, text in texts:
        if not rule.fits(text):
            check(rule, text, where)


def _of_service(service: NetworkService) -> Iterator[_Text]:
    yield "the name of the network service", NAME, service.name
    yield "its payload", NAME, service.payload
    yield from _all("path_ids", NAME, service.path_ids)
    for match in service.matches:
        yield from _labels("a source selector", match.source_selector)
        yield from _labels("metadata", match.metadata.labels if match.metadata is not None else {})
        for route in match.routes:
            yield from _labels("a destination selector", route.destination_selector)


def _of_endpoint(endpoint: object) -> Iterator[_Text]:
    assert isinstance(endpoint, NetworkServiceEndpoint)
    yield "the name of the endpoint", NAME, endpoint.name
    yield "its URL", URL, endpoint.url
    yield from _all("a network service", NAME, endpoint.network_service_names)
    yield from _all("path_ids", NAME, endpoint.path_ids)
    for service, labels in endpoint.network_service_labels.items():
        yield "a network service with labels", NAME, service
        yield from _labels("labels", labels.labels)


def _all(where: str, rule: Rule, texts: Iterable[str]) -> Iterator[_Text]:
    for text in texts:
        yield where, rule, text


def _labels(where: str, labels: dict[str, str]) -> Iterator[_Text]:
    for key, value in labels.items():
        yield f"a key of {where}", KEY, key
        yield f"a value of {where}", FREE, value
