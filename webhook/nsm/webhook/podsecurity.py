"""What the Pod Security Standard of a namespace allows for a client.

At level `privileged`, host paths provide the sockets, unless CSI drivers are configured for all. Other levels forbid
host paths, so CSI drivers provide the same folders; and `restricted` requires containers to drop privileges.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from .kinds import Json, mapping

ENFORCE = "pod-security.kubernetes.io/enforce"

IDENTITY_VOLUME, IDENTITY_FOLDER = "spire-agent-socket", "/run/spire/sockets"
NSM_VOLUME, NSM_FOLDER = "nsm-socket", "/var/lib/networkservicemesh"
NSM_DRIVER = "csi.networkservicemesh.io"


class Level(Enum):
    """The level that a namespace enforces."""

    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


def level_of(labels: Mapping[str, str]) -> Level:
    """The level that a namespace with `labels` enforces; an unknown one counts as the strictest."""
    value = labels.get(ENFORCE) or Level.PRIVILEGED.value
    return Level(value) if value in {level.value for level in Level} else Level.RESTRICTED


def socket_volumes(level: Level, identity_driver: str, *, csi_everywhere: bool) -> list[Json]:
    """The volumes of the identity's and of the manager's sockets."""
    if level is Level.PRIVILEGED and not csi_everywhere:
        return [_host_path(IDENTITY_VOLUME, IDENTITY_FOLDER), _host_path(NSM_VOLUME, NSM_FOLDER)]
    return [_csi(IDENTITY_VOLUME, identity_driver), _csi(NSM_VOLUME, NSM_DRIVER)]


def is_socket_volume(volume: Json) -> bool:
    """Whether `volume` is one of `socket_volumes`, for any level and driver."""
    driver = str(mapping(volume, "csi").get("driver"))
    made = socket_volumes(Level.PRIVILEGED, driver, csi_everywhere=False)
    return volume in [*made, *socket_volumes(Level.RESTRICTED, driver, csi_everywhere=True)]


def socket_mounts() -> list[Json]:
    """The mounts of these volumes in a client."""
    places = ((IDENTITY_VOLUME, IDENTITY_FOLDER), (NSM_VOLUME, NSM_FOLDER))
    return [{"name": name, "mountPath": folder, "readOnly": True} for name, folder in places]


def security_context(level: Level, user: Json) -> Json:
    """The security context of a client's container.

    Levels below `restricted` require nothing, and root (`user` is 0, or empty and the image's) may have to write the
    kubelet's resolv.conf. Other users cannot write it anyway, so they drop all privileges at every level (see `names`).
    """
    is_nobody = bool(user.get("runAsUser"))
    if level is not Level.RESTRICTED and not is_nobody:
        return user
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        **({"readOnlyRootFilesystem": True} if is_nobody else {}),
        **user,
    }


def _host_path(name: str, folder: str) -> Json:
    return {"name": name, "hostPath": {"path": folder, "type": "Directory"}}


def _csi(name: str, driver: str) -> Json:
    return {"name": name, "csi": {"driver": driver, "readOnly": True}}
