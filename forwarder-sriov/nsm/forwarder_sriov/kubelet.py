"""What the kubelet is asked: which pod has which token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from nsm.apis.codec import Codec
from nsm.apis.podresources import ListPodResourcesRequest, PodResourcesListerStub
from nsm.chains.core import Unavailable

SOCKET = "kubelet.sock"
_PATIENCE = 5.0
"""Seconds that the kubelet may take to answer."""
FAULTS = (OSError, GRPCError, ProtocolError, StreamTerminatedError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Given:
    """What the kubelet has given to pods, of the resources that were asked for."""

    pods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Namespace and name of the pod, by the id of the token."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The name of the token, by its id."""


class PodResources:
    """The kubelet's list of what pods have, by its socket in the folder `folder`."""

    def __init__(self, folder: str, names: set[str]) -> None:
        self._path, self._names = os.path.join(folder, SOCKET), names
        self._last = Given()

    async def given(self) -> Given:
        """What pods have now. Raises `Unavailable` if the kubelet does not answer."""
        channel = Channel(path=self._path, codec=Codec())
        try:
            stub = PodResourcesListerStub(channel)
            answer = await stub.list(ListPodResourcesRequest(), timeout=_PATIENCE)
        except FAULTS as error:
            raise Unavailable(
                f"the kubelet does not say at {self._path} which pods have tokens: {told(error)}"
            ) from None
        finally:
            channel.close()
        pods: dict[str, tuple[str, str]] = {}
        names: dict[str, str] = {}
        for pod in answer.pod_resources:
            for devices in (each for container in pod.containers for each in container.devices):
                if devices.resource_name in self._names:
                    pods |= dict.fromkeys(devices.device_ids, (pod.namespace, pod.name))
                    names |= dict.fromkeys(devices.device_ids, devices.resource_name)
        self._last = Given(pods, names)
        return self._last

    async def pod_of(self, token: str) -> tuple[str, str] | None:
        """Namespace and name of the pod that has a token; None if no pod has it. Raises `Unavailable`."""
        if token not in self._last.pods:
            await self.given()
        return self._last.pods.get(token)


def told(error: BaseException) -> str:
    """Why a call failed, in one line."""
    return getattr(error, "message", None) or str(error) or type(error).__name__
