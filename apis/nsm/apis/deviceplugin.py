"""How the kubelet learns of a node's devices and gives them to containers: its device plugin API, version v1beta1."""

from typing import Final

from nsm.apis._generated.v1beta1 import (
    AllocateRequest,
    AllocateResponse,
    ContainerAllocateRequest,
    ContainerAllocateResponse,
    Device,
    DevicePluginOptions,
    DevicePluginStub,
    Empty,
    ListAndWatchResponse,
    PreferredAllocationRequest,
    PreferredAllocationResponse,
    PreStartContainerRequest,
    PreStartContainerResponse,
    RegisterRequest,
    RegistrationStub,
)

VERSION: Final = "v1beta1"
HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"

__all__ = [
    "HEALTHY",
    "UNHEALTHY",
    "VERSION",
    "AllocateRequest",
    "AllocateResponse",
    "ContainerAllocateRequest",
    "ContainerAllocateResponse",
    "Device",
    "DevicePluginOptions",
    "DevicePluginStub",
    "Empty",
    "ListAndWatchResponse",
    "PreStartContainerRequest",
    "PreStartContainerResponse",
    "PreferredAllocationRequest",
    "PreferredAllocationResponse",
    "RegisterRequest",
    "RegistrationStub",
]
