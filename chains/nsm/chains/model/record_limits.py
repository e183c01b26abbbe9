"""Size limits for records of a registry and for queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from nsm.apis import codec
from nsm.apis.registry import Match, NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Limits

Record = NetworkService | NetworkServiceEndpoint

MOST_HOPS = 2
"""Components that may add to a record: the endpoint's own process, and its manager."""
_ADDED_LABELS = 3
"""Labels that each of them may add to each service of an endpoint: node, pod and cluster."""
_OF_A_CLIENT = 0.75
"""The share of the largest size that a client's record may use; the rest is for additions by other components."""


class Excess(NamedTuple):
    """The name of an exceeded limit, and the text of the error: by how much, and how to change it."""

    limit: str
    text: str


_HOW = "(NSM_LIMITS=%s:..)"


def encoded_size(record: Record) -> int:
    """The encoded size of the record in bytes."""
    return len(codec.encode(record))


def excess(record: Record, limits: Limits, *, hops: int = 0, size: int = 0) -> Excess | None:
    """The limit that `record` exceeds, or None.

    `hops` is the number of components that it passed: each may have added something, which must not exceed the limit.
    `size` is that of its message in bytes, if it is known.
    """
    size, largest = (
        size or encoded_size(record),
        limits.record_bytes if hops else int(_OF_A_CLIENT * limits.record_bytes),
    )
    if size > largest:
        text = f"record_bytes is {size}, at most {largest} are allowed here {_HOW % 'record_bytes'}"
        return Excess("record_bytes", text)
    measured = _counted(record)
    if size > _surely_fits(limits):
        measured += _of_endpoint(record) if isinstance(record, NetworkServiceEndpoint) else _of_service(record)
    for name, found, added in measured:
        most = int(getattr(limits, name)) + min(hops, MOST_HOPS) * added
        if found > most:
            return Excess(name, f"{name} is {found}, at most {most} are allowed {_HOW % name}")
    return None


_Measured = list[tuple[str, int, int]]
"""The name of a limit, the record's value, and what a hop may add to it."""


def _surely_fits(limits: Limits) -> int:
    """A size in bytes below which no other limit can be exceeded: a label takes at least two bytes."""
    return min(limits.name_length, limits.url_length, limits.label_length, 2 * limits.labels)


def _counted(record: Record) -> _Measured:
    measured = [("path_ids", len(record.path_ids), 0)]
    if isinstance(record, NetworkServiceEndpoint):
        services = max(len(record.network_service_names), len(record.network_service_labels))
        return [*measured, ("services", services, 0)]
    routes = sum([len(match.routes) for match in record.matches])
    return [*measured, ("matches", max(len(record.matches), routes), 0)]


def _of_endpoint(record: NetworkServiceEndpoint) -> _Measured:
    labels, names = record.network_service_labels, record.network_service_names
    return [
        ("url_length", len(record.url), 0),
        ("name_length", _longest([record.name], names, labels), 0),
        ("labels", sum(len(of.labels) for of in labels.values()), _ADDED_LABELS * len(names)),
        ("label_length", max((_longest_of(of.labels) for of in labels.values()), default=0), 0),
    ]


def _of_service(record: NetworkService) -> _Measured:
    selectors = [selector for match in record.matches for selector in _selectors(match)]
    return [
        ("name_length", _longest([record.name, record.payload]), 0),
        ("labels", sum(map(len, selectors)), 0),
        ("label_length", max(map(_longest_of, selectors), default=0), 0),
    ]


def _selectors(match: Match) -> Iterator[Mapping[str, str]]:
    yield match.source_selector
    yield from (route.destination_selector for route in match.routes)
    if match.metadata is not None:
        yield match.metadata.labels


def _longest_of(labels: Mapping[str, str]) -> int:
    return _longest(labels, labels.values())


def _longest(*texts: Iterable[str]) -> int:
    return max((len(text) for some in texts for text in some), default=0)
