"""The events of a connection that the mesh itself starts: `Begin` offers them, elements find them in the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest

Reselect = Callable[[NetworkServiceRequest], None]
"""Changes the stored request in place before it is sent again: whatever it clears will be chosen again."""


def reselect_everything(request: NetworkServiceRequest) -> None:
    """Let the mesh choose mechanism and endpoint again."""
    _ask_anew(request).network_service_endpoint_name = ""


def reselect_same_endpoint(request: NetworkServiceRequest) -> None:
    """Let the mesh choose the mechanism again, towards the same endpoint."""
    _ask_anew(request)


def _ask_anew(request: NetworkServiceRequest) -> Connection:
    connection = request.connection or Connection()
    connection.mechanism = None
    connection.state = State.RESELECT_REQUESTED
    request.connection = connection
    return connection


class EventFactory(Protocol):
    """Starts events of one connection from inside the mesh, in turn with those of its callers."""

    async def request(self, *, reselect: Reselect | None = None) -> None:
        """Send the stored request again; with `reselect`, close first and let it change the request.

        Does nothing if the connection no longer exists. Raises what the chain raises; the connection stays
        requested then, so that the event may be tried again.
        """
        ...

    async def close(self, *, still: Callable[[], bool] | None = None) -> None:
        """Close the connection; does nothing if it is unknown, or if `still` is false when it is the event's turn."""
        ...

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` while no event of the connection runs; nothing if the connection no longer exists."""
        ...
