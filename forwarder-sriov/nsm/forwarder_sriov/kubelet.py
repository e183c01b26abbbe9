"""What the kubelet is asked: which pod has which token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from nsm.apis.codec import Codec
from nsm.apis.podresources import ListPodResourcesRequest, PodResourcesListerStub
from nsm.chains.core import Unavailable

SOCKET = "kubelet.sock"
_PATIENCE = 5.0
"""Seconds that the kubelet may take to answer."""
FAULTS = (OSError, GRPCError, ProtocolError, StreamTerminatedError, TimeoutError)


class Given(NamedTuple):
    """A token that the kubelet has given to a pod: the token's name, and the pod's namespace and name."""

    name: str
    pod: tuple[str, str]


class PodResources:
    """The kubelet's list of what pods have, by its socket in the folder `folder`."""

    def __init__(self, folder: str, names: set[str]) -> None:
        self._path, self._names = os.path.join(folder, SOCKET), names
        self._last: Mapping[str, Given] = {}

    async def given(self) -> Mapping[str, Given]:
        """What pods have now, by the ids of tokens. Raises `Unavailable` if the kubelet does not answer."""
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
        self._last = {
            token: Given(devices.resource_name, (pod.namespace, pod.name))
            for pod in answer.pod_resources
            for container in pod.containers
            for devices in container.devices
            for token in devices.device_ids
            if devices.resource_name in self._names
        }
        return self._last

    async def pod_of(self, token: str) -> tuple[str, str] | None:
        """Namespace and name of the pod that has a token; None if no pod has it. Raises `Unavailable`."""
        found = self._last.get(token) or (await self.given()).get(token)
        return found.pod if found is not None else None


def told(error: BaseException) -> str:
    """Why a call failed, in one line."""
    return getattr(error, "message", None) or str(error) or type(error).__name__
