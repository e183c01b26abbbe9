"""How large the records of a registry may be, and the queries for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nsm.apis import codec
from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Limits

Record = NetworkService | NetworkServiceEndpoint

MOST_HOPS = 2
"""Components that may have added something of their own: the one beside the endpoint, and its manager."""
_ADDED_LABELS = 3
"""Labels that each of them may add to each service of an endpoint: node, pod and cluster."""
_OF_A_CLIENT = 0.75
"""The part of the largest size that a record may have as it comes from a client: the rest is for what others add."""


def encoded_size(record: Record) -> int:
    """Bytes of the record on the wire."""
    return len(codec.encode(record))


def excess(record: Record, limits: Limits, *, hops: int = 0) -> str | None:
    """The limit that `record` exceeds and by how much, as an error says it; None if it fits.

    `hops` is how many components it has passed: each may have added something, which must not make it too large.
    """
    hops = min(hops, MOST_HOPS)
    size, largest = encoded_size(record), limits.record_bytes if hops else int(_OF_A_CLIENT * limits.record_bytes)
    if size > largest:
        return f"record_bytes is {size}, at most {largest} can be here (NSM_LIMITS=record_bytes:..)"
    for name, found, added in _measured(record):
        most = int(getattr(limits, name)) + hops * added
        if found > most:
            return f"{name} is {found}, at most {most} can be (NSM_LIMITS={name}:..)"
    return None


def _measured(record: Record) -> Iterator[tuple[str, int, int]]:
    """For each limit what `record` has, and what a hop may add to that."""
    yield "name_length", len(record.name), 0
    yield "path_ids", len(record.path_ids), 0
    yield from _of_endpoint(record) if isinstance(record, NetworkServiceEndpoint) else _of_service(record)


def _of_endpoint(record: NetworkServiceEndpoint) -> Iterator[tuple[str, int, int]]:
    labels, names = record.network_service_labels, record.network_service_names
    yield "url_length", len(record.url), 0
    yield "services", max(len(names), len(labels)), 0
    yield "name_length", _longest(names, labels), 0
    yield "labels", sum(len(of.labels) for of in labels.values()), _ADDED_LABELS * len(names)
    yield "label_length", max((_longest_of(of.labels) for of in labels.values()), default=0), 0


def _of_service(record: NetworkService) -> Iterator[tuple[str, int, int]]:
    yield "name_length", len(record.payload), 0
    yield "matches", max(len(record.matches), sum(len(match.routes) for match in record.matches)), 0
    selectors = [selector for match in record.matches for selector in _selectors(match)]
    yield "labels", sum(map(len, selectors)), 0
    yield "label_length", max(map(_longest_of, selectors), default=0), 0


def _selectors(match: Match) -> Iterator[Mapping[str, str]]:
    yield match.source_selector
    yield from (route.destination_selector for route in match.routes)
    if match.metadata is not None:
        yield match.metadata.labels


def _longest_of(labels: Mapping[str, str]) -> int:
    return _longest(labels, labels.values())


def _longest(*texts: Iterable[str]) -> int:
    return max((len(text) for some in texts for text in some), default=0)
