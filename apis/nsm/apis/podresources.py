"""Which devices the kubelet has given to which pods: its pod resources API, version v1."""

from nsm.apis._generated.v1 import (
    ContainerDevices,
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
    PodResourcesListerStub,
)

__all__ = [
    "ContainerDevices",
    "ContainerResources",
    "ListPodResourcesRequest",
    "ListPodResourcesResponse",
    "PodResources",
    "PodResourcesListerStub",
]
