"""The gRPC services for the kubelet: the driver's two, and the one that registers the driver."""

from __future__ import annotations

from importlib.metadata import version

from nsm.apis.csi import (
    GetPluginCapabilitiesRequest,
    GetPluginCapabilitiesResponse,
    GetPluginInfoRequest,
    GetPluginInfoResponse,
    NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse,
    NodeGetInfoRequest,
    NodeGetInfoResponse,
    NodePublishVolumeRequest,
    NodePublishVolumeResponse,
    NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
    ProbeRequest,
    ProbeResponse,
)
from nsm.apis.pluginregistration import InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse
from nsm.chains.logs import log
from nsm.chains.transport import Incoming, Methods, Unary

from .volumes import Volumes

_VERSIONS = ["1.0.0"]
"""The version of the Container Storage Interface."""


def driver(name: str, node: str, volumes: Volumes) -> Methods:
    """CSI's services Identity and Node."""

    async def info(_request: GetPluginInfoRequest, _incoming: Incoming) -> GetPluginInfoResponse:
        return GetPluginInfoResponse(name=name, vendor_version=version("nsm-services"))

    async def capabilities(
        _request: GetPluginCapabilitiesRequest, _incoming: Incoming
    ) -> GetPluginCapabilitiesResponse:
        return GetPluginCapabilitiesResponse()

    async def probe(_request: ProbeRequest, _incoming: Incoming) -> ProbeResponse:
        return ProbeResponse()

    async def node_info(_request: NodeGetInfoRequest, _incoming: Incoming) -> NodeGetInfoResponse:
        return NodeGetInfoResponse(node_id=node)

    async def node_capabilities(
        _request: NodeGetCapabilitiesRequest, _incoming: Incoming
    ) -> NodeGetCapabilitiesResponse:
        return NodeGetCapabilitiesResponse()

    async def publish(request: NodePublishVolumeRequest, _incoming: Incoming) -> NodePublishVolumeResponse:
        volumes.publish(request)
        return NodePublishVolumeResponse()

    async def unpublish(request: NodeUnpublishVolumeRequest, _incoming: Incoming) -> NodeUnpublishVolumeResponse:
        volumes.unpublish(request)
        return NodeUnpublishVolumeResponse()

    return {
        "/csi.v1.Identity/GetPluginInfo": Unary(GetPluginInfoRequest, info),
        "/csi.v1.Identity/GetPluginCapabilities": Unary(GetPluginCapabilitiesRequest, capabilities),
        "/csi.v1.Identity/Probe": Unary(ProbeRequest, probe),
        "/csi.v1.Node/NodeGetInfo": Unary(NodeGetInfoRequest, node_info),
        "/csi.v1.Node/NodeGetCapabilities": Unary(NodeGetCapabilitiesRequest, node_capabilities),
        "/csi.v1.Node/NodePublishVolume": Unary(NodePublishVolumeRequest, publish),
        "/csi.v1.Node/NodeUnpublishVolume": Unary(NodeUnpublishVolumeRequest, unpublish),
    }


def registration(name: str, endpoint: str) -> Methods:
    """The kubelet's service Registration, for the driver `name` on the socket `endpoint`, a path on the node."""

    async def info(_request: InfoRequest, _incoming: Incoming) -> PluginInfo:
        return PluginInfo(type="CSIPlugin", name=name, endpoint=endpoint, supported_versions=_VERSIONS)

    async def status(request: RegistrationStatus, _incoming: Incoming) -> RegistrationStatusResponse:
        if request.plugin_registered:
            log.info("registered with the kubelet")
        else:
            log.error("the kubelet rejected the driver, and will retry", reason=request.error)
        return RegistrationStatusResponse()

    return {
        "/pluginregistration.Registration/GetInfo": Unary(InfoRequest, info),
        "/pluginregistration.Registration/NotifyRegistrationStatus": Unary(RegistrationStatus, status),
    }
