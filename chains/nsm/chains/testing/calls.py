"""Shortcuts for messages in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import Call


def call(
    connection_id: str = "c",
    service: str = "",
    *,
    preferences: Sequence[Mechanism | str] = (),
    timeout: float | None = None,
    **fields: Any,
) -> Call:
    """A Request, or a Close, of the connection `connection_id`; `fields` are those of `Connection`.

    `preferences` are mechanisms, or the names of their types. With a `timeout` the call has a deadline, in seconds.
    """
    connection = Connection(id=connection_id, network_service=service, **fields)
    wanted = [Mechanism(cls="LOCAL", type=each) if isinstance(each, str) else each for each in preferences]
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=wanted), deadline=deadline)


def endpoint_record(name: str, *services: str, url: str = "", **labels: str) -> NetworkServiceEndpoint:
    """The record of an endpoint that provides `services`, with `labels` for each."""
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=list(services),
        network_service_labels={service: NetworkServiceLabels(labels=dict(labels)) for service in services},
        url=url,
    )
