"""Wires that do not exist, from what managers report of the requests for them."""

from __future__ import annotations

from datetime import UTC, datetime

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import INTERFACE_NAME
from nsm.chains.errors import printable
from nsm.chains.model.causes import attempt_in

from .model import Attempt, Candidate
from .wiring import cause_of


def attempt_of(connection: Connection, node: str) -> Attempt | None:
    """The attempt that a manager on `node` reports as `connection`; None for a connection that exists."""
    path, mechanism = connection.path, connection.mechanism
    if path is None or not 0 < path.index < len(path.path_segments):
        return None
    client, own = path.path_segments[0], path.path_segments[path.index]
    if (found := attempt_in(own.metrics)) is None:
        return None
    return Attempt(
        id=client.id,
        client=client.name,
        service=connection.network_service,
        interface=mechanism.parameters.get(INTERFACE_NAME, "") if mechanism is not None else "",
        node=node,
        labels=dict(connection.labels),
        tries=found.tries,
        first=_time(found.first),
        last=_time(found.last),
        cause=cause_of(own.metrics, own.name),
        reason=cause_of(client.metrics, client.name),
        candidates=tuple(
            Candidate(
                endpoint=printable(each.name), tries=each.tries, sentence=printable(each.sentence), at=_time(each.at)
            )
            for each in found.candidates.values()
        ),
    )


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
