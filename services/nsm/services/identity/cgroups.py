"""Which container of which pod a process claims to be in, by its control groups.

The kubelet creates a group for each pod, named after the pod's UID, below that of its QoS class; the container runtime
creates the containers' groups below it. Only that exact path, from the root of the hierarchy, is a claim: podman, LXC
and systemd-nspawn can create groups with any name, but elsewhere (proc(5), cgroups(7), the kubelet's cgroup drivers):

    4:memory:/kubepods/burstable/pod<uid>/<container>                                       v1, driver cgroupfs
    4:memory:/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<container>.scope      v1, driver systemd
    0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/crio-<container>.scope/container
    0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid_>.slice/..    kind: the kubelet's root is /kubelet
    0::/system.slice/containerd.service/kubepods-besteffort-pod<uid_>.slice:cri-containerd:<container>    two drivers
    0::/../../kubepods-besteffort-pod<uid_>.slice/docker-<container>.scope      seen from a cgroup namespace

systemd's names have `_` where the UID has `-`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nsm.chains.core import Refused

SYSTEMD, CGROUPFS, BOTH = "systemd", "cgroupfs", "systemd-cgroupfs"
"""Who creates the groups. `BOTH`: the kubelet uses systemd, but containerd creates them itself, below its own group."""
DRIVERS = (SYSTEMD, CGROUPFS, BOTH)
QOS = {"Guaranteed": "", "Burstable": "burstable", "BestEffort": "besteffort"}
"""The kubelet's name of a QoS class's group, by the API server's name; guaranteed pods have no such group."""

_UID = "(?P<uid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})"
_UID_ = "(?P<uid>[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}|[0-9a-f]{32})"
_UIDS = {SYSTEMD: _UID_, CGROUPFS: _UID, BOTH: _UID_}
_THE_UID, _THE_CONTAINER = "@", "%"
"""Placeholders for pod and container in a template; neither occurs in names of groups that the kubelet creates."""
_NAMES = {
    ("containerd", SYSTEMD): "cri-containerd-%.scope",
    ("cri-o", SYSTEMD): "crio-%.scope",
    ("docker", SYSTEMD): "docker-%.scope",
    ("containerd", CGROUPFS): "%",
    ("cri-o", CGROUPFS): "crio-%",
    ("docker", CGROUPFS): "%",
    ("containerd", BOTH): "%",
}


@dataclass(frozen=True)
class Claim:
    """The content of a path: the pod's UID, its QoS class, the container's group, and the driver that created it."""

    uid: str
    qos: str
    group: str
    driver: str


@dataclass(frozen=True)
class Layout:
    """Where the kubelet of this node creates the groups of pods."""

    driver: str
    root: tuple[str, ...] = ()
    """The parts of its --cgroup-root."""
    outer: str = ""
    """The prefix if the whole node is in a group."""

    def template(self, qos: str) -> str:
        """The path of a container's group, with `@` for the pod's UID and `%` for the name of the container's group."""
        parts = [*self.root, "kubepods", *([QOS[qos]] if QOS[qos] else []), f"pod{_THE_UID}"]
        if self.driver == CGROUPFS:
            return f"{self.outer}/{'/'.join(parts)}/{_THE_CONTAINER}"
        escaped = [part.replace("-", "_") for part in parts]  # a dash divides the levels
        slices = [f"{'-'.join(escaped[: number + 1])}.slice" for number in range(len(escaped))]
        if self.driver == SYSTEMD:
            return f"{self.outer}/{'/'.join(slices)}/{_THE_CONTAINER}"
        return f"{self.outer}/system.slice/containerd.service/{slices[-1]}:cri-containerd:{_THE_CONTAINER}"


@dataclass(frozen=True)
class Own:
    """The pod of this process, as reported by the API server, and its control groups."""

    uid: str
    qos: str
    cgroup: str


class Recogniser:
    """Finds the claim in the control groups of a process. Only exact paths of its layouts count."""

    def __init__(self, layouts: Iterable[Layout], own: Own | None = None) -> None:
        """`own` is set if paths are relative to our own group: in the cgroup namespace of our container."""
        self._patterns = [
            (layout.driver, qos, _compiled(template, layout.driver))
            for layout in layouts
            for qos in QOS
            for template in (_seen_from(layout, qos, own) if own else [layout.template(qos)])
        ]

    def claim(self, cgroup: str) -> Claim:
        """The claim in a process's `/proc/PID/cgroup`.

        Raises `Refused` if it is a process of the node itself, or if its groups name different containers.
        """
        claims = {claim for path in _paths(cgroup).values() for claim in self._claims(path)}
        if not claims:
            raise Refused("it is not in a pod, but a process of the node itself")
        if len(claims) > 1:
            raise Refused(f"its control groups name several pods: {', '.join(sorted({each.uid for each in claims}))}")
        return claims.pop()

    def _claims(self, path: str) -> Iterable[Claim]:
        for driver, qos, pattern in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                yield Claim(match["uid"].replace("_", "-"), qos, match["group"], driver)


def layout_around(own: Own) -> Layout | None:
    """The layout of our own pod's groups; None if they are not those of a pod of the kubelet."""
    for path in _paths(own.cgroup).values():
        for layout in _guesses(path, own):
            template = layout.template(own.qos).replace(_THE_UID, _spelled(layout.driver, own.uid))
            if (match := re.fullmatch(f"(.*?){_escaped(template)}", path, re.DOTALL)) is not None:
                return Layout(layout.driver, layout.root, match[1])
    return None


def looks_like_pod_group(cgroup: str) -> bool:
    """Whether an ancestor group of the process is named like a pod's, at any location."""
    return re.search(r"pod[0-9a-f]{8}[-_0-9a-f]{24,}", cgroup) is not None


def group_names(containers: Iterable[str], driver: str) -> set[str]:
    """The names of the groups of these containers, from their ids in the API server: `containerd://3f2a..`."""
    runtimes = (container.partition("://") for container in containers)
    return {
        _NAMES[runtime, driver].replace(_THE_CONTAINER, number)
        for runtime, _, number in runtimes
        if number and (runtime, driver) in _NAMES
    }


def is_own_container(cgroup: str, own: str) -> bool:
    """Whether a process is in our own container, whose groups are `own` and do not show the pod.

    In its own cgroup namespace, a container sees itself at the root, and so all processes in it.
    """
    return cgroup == own and is_at_the_root(own)


def is_at_the_root(cgroup: str) -> bool:
    """Whether a process is at the root of all hierarchies, as seen from here."""
    return all(path == "/" for path in _paths(cgroup).values())


def _guesses(path: str, own: Own) -> Iterable[Layout]:
    """Layouts that may have produced `path`, the group of our own pod."""
    yield Layout(CGROUPFS)
    name = re.search(rf"/((?:[^/-]+-)*)kubepods(?:-[a-z]+)?-pod{_spelled(SYSTEMD, own.uid)}\.slice", path)
    if name is not None:
        root = tuple(name[1].split("-")[:-1])
        yield Layout(SYSTEMD, root)
        yield Layout(BOTH, root)


def _seen_from(layout: Layout, qos: str, own: Own) -> Iterable[str]:
    """Templates relative to our own group. crun under systemd puts a container one level below its own group."""
    group = layout.template(own.qos).replace(_THE_UID, "ours")
    for ours in (group, f"{group}/container") if layout.driver == SYSTEMD else (group,):
        yield f"/{os.path.relpath(layout.template(qos), ours)}"


def _compiled(template: str, driver: str) -> re.Pattern[str]:
    return re.compile(_escaped(template).replace(_THE_UID, _UIDS[driver]), re.DOTALL)


def _escaped(template: str) -> str:
    """A pattern for the container's group and any subgroups, which the pod may create with any name."""
    return re.escape(template).replace(_THE_CONTAINER, r"(?P<group>[^/]+)(?:/.*)?")


def _spelled(driver: str, uid: str) -> str:
    return uid if driver == CGROUPFS else uid.replace("-", "_")


def _paths(cgroup: str) -> Mapping[str, str]:
    """The paths by hierarchy, such as `4:memory`.

    A line feed is the only character that a group's name cannot contain: any other line break is part of a name.
    """
    found = {}
    for line in cgroup.removesuffix("\n").split("\n") if cgroup else ():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found[f"{number}:{controllers}"] = path
    return found
