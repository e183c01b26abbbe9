"""What managers report about connections, in a small form: a view keeps one for each connection of each manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import NamedTuple

from nsm.apis.connection import Connection, PathSegment, State
from nsm.apis.mechanisms import INTERFACE_NAME, REMOTE
from nsm.apis.wellknown import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = 0, 253_402_300_799
_NOTHING: Mapping[str, str] = {}


class Segment(NamedTuple):
    """One component of a path."""

    name: str
    id: str
    expires: datetime | None
    metrics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """One connection as one manager has it, whose own segment is that at `index`."""

    id: str
    index: int
    state: State
    service: str
    endpoint: str
    mechanism: str
    is_remote: bool
    """Whether it comes from another node."""
    interface: str
    payload: str
    labels: Mapping[str, str]
    client_addresses: tuple[str, ...]
    endpoint_addresses: tuple[str, ...]
    routes: tuple[str, ...]
    mtu: int | None
    segments: tuple[Segment, ...]

    @property
    def wire(self) -> tuple[str, str]:
        """The wire that it belongs to: the name of its client, and the connection's id there."""
        client = self.segments[0]
        return client.name, client.id


def report_of(connection: Connection) -> Report | None:
    """What `connection` says; None if it has no path, or an index that is not in its path."""
    path, mechanism = connection.path, connection.mechanism
    if path is None or not 0 <= path.index < len(path.path_segments):
        return None
    context = connection.context
    addresses = context.ip_context if context is not None else None
    return Report(
        id=intern(connection.id),
        index=path.index,
        state=connection.state,
        service=intern(connection.network_service),
        endpoint=intern(connection.network_service_endpoint_name),
        mechanism=intern(mechanism.type) if mechanism is not None else "",
        is_remote=mechanism is not None and mechanism.cls == REMOTE,
        interface=intern(mechanism.parameters.get(INTERFACE_NAME, "")) if mechanism is not None else "",
        payload=intern(connection.payload),
        labels=_interned(connection.labels),
        client_addresses=tuple(map(intern, addresses.src_ip_addrs)) if addresses is not None else (),
        endpoint_addresses=tuple(map(intern, addresses.dst_ip_addrs)) if addresses is not None else (),
        routes=tuple(intern(each.prefix) for each in addresses.src_routes) if addresses is not None else (),
        mtu=(context.mtu or None) if context is not None else None,
        segments=tuple(map(_segment, path.path_segments)),
    )


def moment(stamp: Timestamp | None) -> datetime | None:
    """A time of the protocol; None for one that no calendar has."""
    if stamp is None or not _FIRST < stamp.seconds <= _LAST:
        return None
    return _EPOCH + timedelta(seconds=stamp.seconds, milliseconds=min(max(stamp.nanos, 0), 999_999_999) // 1_000_000)


def _segment(segment: PathSegment) -> Segment:
    return Segment(intern(segment.name), intern(segment.id), moment(segment.expires), _interned(segment.metrics))


def _interned(values: Mapping[str, str]) -> Mapping[str, str]:
    return {intern(key): intern(value) for key, value in values.items()} if values else _NOTHING
