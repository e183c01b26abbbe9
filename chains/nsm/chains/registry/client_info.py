"""Adds labels that say where an endpoint runs, for the selectors of a service."""

from __future__ import annotations

from collections.abc import Mapping

from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler


class RegistryClientInfo(RegistryElement[NetworkServiceEndpoint]):
    """Add the labels (`nodeName`, `podName`, `clusterName`) that the endpoint's services do not have yet."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = {key: value for key, value in labels.items() if value}

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Add missing labels."""
        if self._labels:
            for service in call.record.network_service_names:
                has = call.record.network_service_labels.setdefault(service, NetworkServiceLabels())
                has.labels = {**self._labels, **has.labels}
        return await rest.register(call)
