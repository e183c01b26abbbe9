"""Adds the labels of a cluster to endpoints that are registered in other domains."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.config.table import Table
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler


class RegistryClusterInfo(RegistryElement[NetworkServiceEndpoint]):
    """Add the cluster's `labels` to those of an endpoint's services that do not have them yet."""

    def __init__(self, labels: Table) -> None:
        self._labels = labels

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Add missing labels."""
        if labels := self._labels.value():
            for service in call.record.network_service_names:
                has = call.record.network_service_labels.setdefault(service, NetworkServiceLabels())
                has.labels = {**labels, **has.labels}
        return await rest.register(call)
