"""Adds labels about where a client runs, which selectors of a service can use."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler

LABELS = ("nodeName", "podName", "clusterName")
"""The node, the pod and the cluster that a client runs in."""


class ClientInfo(Element):
    """Add the labels (`nodeName`, `podName`, `clusterName`) that the connection does not have yet."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = {key: value for key, value in labels.items() if value}

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Fill in what is missing."""
        connection = call.connection
        connection.labels = {**self._labels, **connection.labels}
        return await rest.request(call)
