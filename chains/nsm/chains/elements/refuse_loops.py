"""Refuses chains of services that lead back to themselves, where they close, and not when a path is full."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.connection import Connection, PathSegment
from nsm.chains.core import Call, Element, Handler, InvalidRequest

PASSED_AS = "passed_as"
"""Under this name, a pass-through endpoint's path segment shows the labels with which it requests the next service."""
_ARROW = " → "
_SHOWN = 512
"""Characters of labels that an error repeats."""


class RefuseLoops(Element):
    """For a pass-through endpoint: refuse a request that passed here before, or that went on with the same labels.

    Labels choose the next endpoint, so a chain that twice goes on with the same ones for the same service never ends.
    Replicas of this endpoint notice that too: otherwise each would try all others. Raises `InvalidRequest` with the
    path. Stands before `Connect`.
    """

    def __init__(self, name: str, labels: Mapping[str, str]) -> None:
        self._name = name
        self._passed_as = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Look for this endpoint in the path up to here, then leave its labels there."""
        path = call.connection.path
        if path is not None and path.index < len(path.path_segments):
            before, own = path.path_segments[: path.index], path.path_segments[path.index]
            for segment in before:
                if self._is_loop(segment):
                    looped = self._shown(call.connection.network_service, [*before, own])
                    raise InvalidRequest(looped, remedy="change that match of the network service")
            own.metrics[PASSED_AS] = self._passed_as
        return await rest.request(call)

    def _is_loop(self, segment: PathSegment) -> bool:
        return segment.name == self._name or segment.metrics.get(PASSED_AS) == self._passed_as

    def _shown(self, service: str, segments: list[PathSegment]) -> str:
        labels = self._passed_as[:_SHOWN] or "none"
        way = _ARROW.join(segment.name for segment in segments)
        return (
            f"the chain of {service!r} leads back to itself: {way}; a match of the service sends clients with the"
            f" labels {labels} to endpoints with the same labels, or to {self._name!r} again"
        )
