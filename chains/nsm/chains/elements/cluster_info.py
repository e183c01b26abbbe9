"""Adds the labels of a cluster to connections that leave it."""

from __future__ import annotations

from nsm.apis.connection import Connection
from nsm.chains.config.table import Table
from nsm.chains.core import Call, Element, Handler


class ClusterInfo(Element):
    """Add the cluster's `labels` that a connection does not have yet: it keeps those of the client's cluster."""

    def __init__(self, labels: Table) -> None:
        self._labels = labels

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add missing labels."""
        for name, value in self._labels.value().items():
            call.connection.labels.setdefault(name, value)
        return await rest.request(call)
