"""Volumes of pods: each is one folder of the node, bound read-only where the kubelet wants it."""

from __future__ import annotations

import os
from pathlib import Path

from nsm.apis.csi import NodePublishVolumeRequest, NodeUnpublishVolumeRequest
from nsm.chains.core import Internal, InvalidRequest, Unavailable
from nsm.chains.logs import log

from . import mounts

_CONTEXT = "csi.storage.k8s.io/"


class Volumes:
    """Shows `folder` in pods. Doing again what is done already is fine, as the kubelet repeats itself."""

    def __init__(self, folder: str, *, kubelet_folder: str) -> None:
        self._folder, self._kubelet_folder = folder, os.path.realpath(kubelet_folder)

    def publish(self, request: NodePublishVolumeRequest) -> None:
        """Bind the folder at the volume's target.

        Raises `InvalidRequest` for what is no ephemeral read-only volume, `Unavailable` if the folder is not there.
        """
        _check_kind(request)
        target = self._target(request.volume_id, request.target_path)
        if not os.path.isdir(self._folder):
            raise Unavailable(f"{self._folder} is not there on this node: does the manager run?")
        try:
            Path(target).mkdir(mode=0o750, parents=True, exist_ok=True)
            if mounts.shows(self._folder, target):
                return
            mounts.unmount(target)
            mounts.bind_read_only(self._folder, target)
        except OSError as error:
            raise Internal(_told(error)) from None
        log.info("published", volume=request.volume_id, pod=_pod(request))

    def unpublish(self, request: NodeUnpublishVolumeRequest) -> None:
        """Take the bind and its mount point away. Only an empty mount point is removed, ever."""
        target = self._target(request.volume_id, request.target_path)
        try:
            mounts.unmount(target)
            os.rmdir(target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Internal(_told(error)) from None
        log.info("unpublished", volume=request.volume_id)

    def _target(self, volume: str, target: str) -> str:
        if not volume:
            raise InvalidRequest("the volume has no id")
        resolved, root = os.path.realpath(target), self._kubelet_folder
        if not target.startswith("/") or resolved == root or os.path.commonpath([resolved, root]) != root:
            raise InvalidRequest(
                f"{target!r} is not below {self._kubelet_folder}; if the kubelet has another root, set NSM_KUBELET_DIR"
            )
        return resolved


def _told(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _check_kind(request: NodePublishVolumeRequest) -> None:
    """Refuse what a pod may have asked for and cannot have."""
    mount = request.volume_capability.mount if request.volume_capability else None
    if mount is None:
        raise InvalidRequest("the volume is no folder; block volumes are not supported")
    if request.volume_context.get(f"{_CONTEXT}ephemeral") != "true":
        raise InvalidRequest(
            "the volume is not ephemeral; write it into the pod itself (and the CSIDriver needs podInfoOnMount: true)"
        )
    if not request.readonly:
        raise InvalidRequest("the volume is not read-only; write readOnly: true beside its driver")
    if mount.fs_type or mount.mount_flags or mount.volume_mount_group:
        raise InvalidRequest("the volume has a file system type, mount options or a group; it takes none of them")


def _pod(request: NodePublishVolumeRequest) -> str:
    context = request.volume_context
    return f"{context.get(f'{_CONTEXT}pod.namespace', '')}/{context.get(f'{_CONTEXT}pod.name', '')}"
