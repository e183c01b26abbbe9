"""Volumes of pods: each is a read-only bind mount of one folder of the node."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nsm.apis.csi import NodePublishVolumeRequest, NodeUnpublishVolumeRequest
from nsm.chains.core import Internal, InvalidRequest, Unavailable
from nsm.chains.logs import log

from . import mounts

_CONTEXT = "csi.storage.k8s.io/"
_PLACE = re.compile(r"pods/[0-9A-Za-z-]{1,64}/volumes/kubernetes\.io~csi/[0-9A-Za-z][0-9A-Za-z._-]{0,252}/mount")
"""The path of a pod's volume below the kubelet's root. Pods cannot write to any folder on this path."""
_VOLUME = re.compile(r"[0-9A-Za-z._-]{1,128}")


class Volumes:
    """Mounts `folder` into pods. Idempotent, since the kubelet repeats calls."""

    def __init__(self, folder: str, *, kubelet_folder: str) -> None:
        self._folder = folder
        self._roots = kubelet_folder, os.path.realpath(kubelet_folder)
        """The kubelet's root, as configured and resolved."""

    def publish(self, request: NodePublishVolumeRequest) -> None:
        """Bind the folder at the volume's target.

        Raises `InvalidRequest` unless it is an ephemeral read-only volume, `Unavailable` if the folder is missing.
        """
        _check_kind(request)
        target = self._target(request.volume_id, request.target_path)
        if not os.path.isdir(self._folder):
            raise Unavailable(f"{self._folder} does not exist on this node; is the manager running?")
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
        """Unmount the volume, and remove its mount point if it is empty."""
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
        """The checked path of the volume, without symbolic links."""
        if not volume:
            raise InvalidRequest("the volume has no id")
        if not _VOLUME.fullmatch(volume):
            raise InvalidRequest(f"{volume[:80]!r} is not the id of a volume")
        root = next((root for root in self._roots if target.startswith(f"{root}/")), None)
        if root is None or not _PLACE.fullmatch(target[len(root) + 1 :]):
            raise InvalidRequest(
                f"{target[:200]!r} is not a path of a CSI volume below {self._roots[0]}; "
                "if the kubelet has another root, set NSM_KUBELET_DIR"
            )
        resolved = os.path.join(self._roots[-1], target[len(root) + 1 :])
        if os.path.realpath(resolved) != resolved:
            raise InvalidRequest(f"{target[:200]!r} contains a symbolic link, which is not followed")
        return resolved


def _told(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _check_kind(request: NodePublishVolumeRequest) -> None:
    """Reject unsupported options of a volume."""
    mount = request.volume_capability.mount if request.volume_capability else None
    if mount is None:
        raise InvalidRequest("block volumes are not supported; use a file system volume")
    if request.volume_context.get(f"{_CONTEXT}ephemeral") != "true":
        raise InvalidRequest(
            "the volume is not ephemeral; define it in the pod itself (and the CSIDriver needs podInfoOnMount: true)"
        )
    if not request.readonly:
        raise InvalidRequest("the volume is not read-only; write readOnly: true beside its driver")
    if mount.fs_type or mount.mount_flags or mount.volume_mount_group:
        raise InvalidRequest("the volume has a file system type, mount options or a group, which are not supported")


def _pod(request: NodePublishVolumeRequest) -> str:
    context = request.volume_context
    name = "/".join(context.get(f"{_CONTEXT}pod.{key}", "")[:253] for key in ("namespace", "name"))
    return name if name.isprintable() else ascii(name)
