"""Which pod a process belongs to, by its control groups.

The kubelet makes a group for each pod and names it after the pod's UID; the container runtime makes the containers'
groups below it. What stands around it differs (proc(5), cgroups(7), and the kubelet's cgroup drivers):

    4:memory:/kubepods/burstable/pod<uid>/<container>                                       v1, driver cgroupfs
    4:memory:/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<container>.scope      v1, driver systemd
    0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/crio-<container>.scope/container
    0::/system.slice/containerd.service/kubepods-besteffort-pod<uid_>.slice:cri-containerd:<container>
    0::/docker/<node>/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/..    kind
    0::/../../kubepods-besteffort-pod<uid_>.slice/docker-<container>.scope      seen from a cgroup namespace

systemd's names have `_` where the UID has `-`.
"""

from __future__ import annotations

import re

from nsm.chains.core import Refused

_POD = re.compile(
    r"(?:[\w.-]*kubepods-(?:[a-z]+-)?)?pod(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?(?::.*)?"
)
_DELEGATED = re.compile(r"user\.slice|(?!containerd\.service).*\.service")
"""Parts of the tree that systemd leaves to users of the node, or may leave to a service: they name groups as they like.

containerd is none of them: where its cgroup driver is not the kubelet's, pods are in its group.
"""


_ABOVE_A_POD = re.compile(r"[\w.-]*kubepods[\w.-]*|burstable|besteffort")
"""What the kubelet calls the groups between two pods and the one that both are below."""


def pod_uid(cgroup: str, own: str = "") -> str:
    """The UID of the pod of a process, from its `/proc/PID/cgroup`.

    `own` is that of this process, if it is in a cgroup namespace: all paths begin at its group then. Raises `Refused`
    if it is a process of the node itself, or its groups name different pods.
    """
    ours, theirs = _paths(own), _paths(cgroup)
    outside = [path for hierarchy, path in theirs.items() if not _is_within(path, ours.get(hierarchy))]
    uids = {uid for uid in map(_outermost, outside) if uid is not None}
    if not uids:
        raise Refused("it is in no pod, but a process of the node itself")
    if len(uids) > 1:
        raise Refused(f"its control groups name several pods: {', '.join(sorted(uids))}")
    return uids.pop()


def is_own_container(cgroup: str, own: str) -> bool:
    """Whether a process is in the container of this one, whose own groups are `own`, and that does not show the pod.

    In a cgroup namespace of its own a container is the root of all, and so is everything else that is in it.
    """
    return cgroup == own and all(path == "/" for path in _paths(own).values())


def _paths(cgroup: str) -> dict[str, str]:
    """The paths by hierarchy, such as `4:memory`.

    A line feed is the only character that the name of a group cannot have: any other break is part of one.
    """
    found = {}
    for line in cgroup.removesuffix("\n").split("\n") if cgroup else ():
        number, controllers, path = line.split(":", 2)
        found[f"{number}:{controllers}"] = path
    return found


def _is_within(path: str, own: str | None) -> bool:
    """Whether a group is that of our own container, or below it: who is in there names groups as he likes."""
    return own == "/" and not path.startswith("/../")


def _outermost(path: str) -> str | None:
    """The pod whose group is the highest one: those below it a pod may make and name as it likes.

    A path from a cgroup namespace (`/../..`) may begin within our own pod, whose name is not in it. So it counts only
    if there is nothing but the kubelet's groups before the pod's.
    """
    is_relative = path.startswith("/../")
    for name in path.split("/"):
        if _DELEGATED.fullmatch(name):
            return None
        if (match := _POD.fullmatch(name)) is not None:
            return match["uid"].replace("_", "-")
        if is_relative and name not in {"", ".."} and not _ABOVE_A_POD.fullmatch(name):
            return None
    return None
