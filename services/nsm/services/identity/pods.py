"""Identifies the pods of one node: from a process to its pod's name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nsm.chains.core import Exhausted, Refused, Unavailable
from nsm.chains.logs import log
from nsm.chains.transport import Credentials
from nsm.kube import PODS, Api, Change, Object, Reflector

from .cgroups import (
    CGROUPFS,
    QOS,
    SYSTEMD,
    Claim,
    Layout,
    Own,
    Recogniser,
    group_names,
    is_at_the_root,
    is_own_container,
    layout_around,
    looks_like_pod_group,
)

_PATIENCE = 10.0
"""Seconds to wait until the API server reports a pod and its container, which may start before that."""
_WAITING = 32
"""Callers of one pod that may wait at once."""

_FIRST_CGROUP_NAMESPACE = 0xEFFFFFFB
"""The inode of the initial cgroup namespace (PROC_CGROUP_INIT_INO)."""


class Pods:
    """The pods of `node`, from the API server. An async context manager that watches them while open."""

    def __init__(self, api: Api, node: str) -> None:
        self._node = node
        self._by_uid: dict[str, Object] = {}
        self._news = asyncio.Event()
        self._waiting: Counter[str] = Counter()
        self._watched = Reflector(api, PODS, fields=f"spec.nodeName={node}")
        self._watched.on_change(self._note)

    async def named(self, claim: Claim) -> tuple[str, str]:
        """Namespace and name of the pod with that claim, checked with the API server.

        Waits until the pod and its container are known. Raises `Refused` if the claim is false,
        `Unavailable` if the API server has not responded yet, `Exhausted` if too many callers wait for the same pod.
        """
        why = self._fault(claim)
        if why:
            with self._place(claim.uid):
                why = await self._awaited(claim)
        if why:
            raise Refused(why)
        metadata = self._by_uid[claim.uid]["metadata"]
        return metadata["namespace"], metadata["name"]

    async def own(self, namespace: str, name: str) -> Object:
        """The pod of that name on this node; waits for it. Raises `Refused` if it does not exist."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._watched.synced()
                while (found := self._watched.objects.get((namespace, name))) is None:
                    await self._news.wait()
                return found
        except TimeoutError:
            where = f"{namespace}/{name} is not a pod of node {self._node}"
            raise Refused(f"POD_NAME: {where}{self._reason()}") from None

    async def _awaited(self, claim: Claim) -> str:
        """What is wrong with a claim, after waiting for changes; empty if it is true."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._watched.synced()
                while why := self._fault(claim):
                    await self._news.wait()
                return why
        except TimeoutError:
            if not self._watched.is_synced:
                raise Unavailable(f"the pods of node {self._node} are not known yet{self._reason()}") from None
            return f"{self._fault(claim)}{self._reason()}"

    def _fault(self, claim: Claim) -> str:
        """Which part of a claim contradicts the API server; empty if none does."""
        pod = self._by_uid.get(claim.uid)
        if pod is None:
            return f"its pod {claim.uid} is not on node {self._node}"
        name = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if (qos := _status(pod).get("qosClass")) != claim.qos:
            return f"its control group is for class {claim.qos}, but the class of {name} is {qos or 'unknown'}"
        if claim.group not in group_names(_containers(pod), claim.driver):
            return f"its control group {claim.group[:80]!r} is not that of a container of {name}"
        return ""

    @contextmanager
    def _place(self, uid: str) -> Iterator[None]:
        if self._waiting[uid] >= _WAITING:
            raise Exhausted(f"{_WAITING} callers are already waiting for pod {uid}; try again later")
        self._waiting[uid] += 1
        try:
            yield
        finally:
            self._waiting[uid] -= 1
            if not self._waiting[uid]:
                del self._waiting[uid]

    def _reason(self) -> str:
        return f": {self._watched.trouble}" if self._watched.trouble else ""

    def _note(self, change: Change) -> None:
        if change.before is not None:
            self._by_uid.pop(change.before["metadata"]["uid"], None)
        if change.now is not None:
            self._by_uid[change.now["metadata"]["uid"]] = change.now
        self._news.set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Pods:
        await self._watched.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._watched.__aexit__(None, None, None)


class PodIdentities:
    """Identifies callers as `spiffe://TRUST-DOMAIN/ns/NAMESPACE/pod/NAME`.

    `own` is our own pod, if known: its groups show where the kubelet of this node creates those of pods.
    Without it, they are expected at the root of the hierarchy. `driver` and `root`, the kubelet's --cgroup-root,
    override that.
    """

    def __init__(
        self,
        pods: Pods,
        trust_domain: str,
        *,
        own: tuple[str, str] | None = None,
        driver: str = "",
        root: str = "",
        proc: Path = Path("/proc"),
    ) -> None:
        self._pods, self._trust_domain, self._own, self._proc = pods, trust_domain, own, proc
        self._drivers = (driver,) if driver else (SYSTEMD, CGROUPFS)
        self._is_told, self._root = bool(driver or root), tuple(filter(None, root.split("/")))
        self._recogniser: Recogniser | None = None
        self._finding_out = asyncio.Lock()

    async def identify(self, _socket_path: str, caller: Credentials | None) -> str:
        """The SPIFFE ID of the caller's pod. Raises `Refused`, with the reason why it is not a pod of this node."""
        assert caller is not None  # these sockets are unix sockets
        try:
            namespace, name = await self._pod_of(caller)
        except (Refused, Exhausted) as error:
            refused = type(error)(f"no identity is issued to pid {caller.pid}, uid {caller.uid}: {error.detail}")
            log.info("refused", error=refused.detail)
            raise refused from None
        return f"spiffe://{self._trust_domain}/ns/{namespace}/pod/{name}"

    async def _pod_of(self, caller: Credentials) -> tuple[str, str]:
        groups, own = self._groups_of(caller), self._groups("self")
        if self._own is not None and is_own_container(groups, own):
            return self._own
        found = await self._pods.named((await self._recognising(own)).claim(groups))
        if not caller.is_alive():  # it may have ended during the wait
            raise Refused("its process has ended")
        return found

    async def _recognising(self, cgroup: str) -> Recogniser:
        """The recogniser for the pods of this node; determined once, from our own `/proc/self/cgroup`."""
        async with self._finding_out:
            if self._recogniser is None:
                self._recogniser = await self._recogniser_for(cgroup)
            return self._recogniser

    async def _recogniser_for(self, cgroup: str) -> Recogniser:
        layouts = [Layout(driver, self._root) for driver in self._drivers]
        is_root = is_at_the_root(cgroup) and self._is_in_a_namespace()
        if self._own is None:
            if is_root:
                raise Refused(
                    "`nsm identity` sees control groups relative to its own container, and therefore needs POD_NAME"
                )
            return Recogniser(layouts)
        if not is_root and (self._is_told or not looks_like_pod_group(cgroup)):
            if not self._is_told:
                log.warning(
                    "this process is not in a pod, so pods are expected at the root of the control groups; "
                    "NSM_CGROUP_DRIVER and NSM_CGROUP_ROOT change that"
                )
            return Recogniser(layouts)
        own = _own(await self._pods.own(*self._own), cgroup)
        if is_root:
            return Recogniser(layouts, own)
        if (layout := layout_around(own)) is None:
            raise Refused(
                "cannot detect the control groups of this node's pods, because those of `nsm identity` are not its "
                "pod's; set NSM_CGROUP_DRIVER and NSM_CGROUP_ROOT to the kubelet's values"
            )
        return Recogniser([layout])

    def _groups_of(self, caller: Credentials) -> str:
        """The caller's control groups.

        The id of an ended process may have been reused. So they are read before a check that the process is alive: if
        it is, they were its own.
        """
        if not caller.pid:
            raise Refused("its process is not visible from here; `nsm identity` needs hostPID: true")
        groups = self._groups(str(caller.pid))
        if not groups or not caller.is_alive():
            raise Refused("its process has ended")
        return groups

    def _is_in_a_namespace(self) -> bool:
        """Whether we are in a cgroup namespace, so that paths are not relative to the node's root."""
        try:
            return (self._proc / "self" / "ns" / "cgroup").stat().st_ino != _FIRST_CGROUP_NAMESPACE
        except OSError:
            return False

    def _groups(self, process: str) -> str:
        """The raw control groups; in text mode, a carriage return in a name would end a line."""
        try:
            return (self._proc / process / "cgroup").read_bytes().decode(errors="surrogateescape")
        except OSError:
            return ""


def _own(pod: Object, cgroup: str) -> Own:
    qos = str(_status(pod).get("qosClass"))
    if qos not in QOS:
        raise Refused(f"the API server reports no QoS class for `nsm identity`'s own pod: {qos[:40]!r}")
    return Own(pod["metadata"]["uid"], qos, cgroup)


def _status(pod: Object) -> Object:
    status = pod.get("status")
    return status if isinstance(status, dict) else {}


def _containers(pod: Object) -> Iterator[str]:
    """The ids of its containers of all kinds, such as `containerd://3f2a..`; those not started yet have none."""
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for status in _status(pod).get(kind) or ():
            if isinstance(status, dict):
                yield str(status.get("containerID") or "")
