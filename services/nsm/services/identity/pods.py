"""Tells the pods of one node apart: from a process to its pod's name."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nsm.chains.core import Refused, Unavailable
from nsm.chains.logs import log
from nsm.chains.transport import Credentials
from nsm.kube import PODS, Api, Change, Object, Reflector

from .cgroups import is_own_container, pod_uid

_PATIENCE = 5.0
"""Seconds to wait for the API server to tell of a pod: a container may be up before the news of its pod is here."""

_FIRST_CGROUP_NAMESPACE = 0xEFFFFFFB
"""The inode of the namespace that the kernel starts with (PROC_CGROUP_INIT_INO)."""


class Pods:
    """The pods of `node`, as the API server tells them. An async context manager: it watches them meanwhile."""

    def __init__(self, api: Api, node: str) -> None:
        self._node = node
        self._by_uid: dict[str, Object] = {}
        self._news = asyncio.Event()
        self._watched = Reflector(api, PODS, fields=f"spec.nodeName={node}")
        self._watched.on_change(self._note)

    async def named(self, uid: str) -> tuple[str, str]:
        """Namespace and name of the pod with that UID, which is waited for if need be.

        Raises `Refused` if there is none on this node, `Unavailable` if the API server has told nothing yet.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._watched.synced()
                while uid not in self._by_uid:
                    await self._news.wait()
        except TimeoutError:
            if not self._watched.is_synced:
                raise Unavailable(f"the pods of node {self._node} are not known yet{self._reason()}") from None
            raise Refused(f"its pod {uid} is not one of node {self._node}{self._reason()}") from None
        metadata = self._by_uid[uid]["metadata"]
        return metadata["namespace"], metadata["name"]

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
    """Names callers `spiffe://TRUST-DOMAIN/ns/NAMESPACE/pod/NAME`. `own` is the pod that we are in, if known."""

    def __init__(
        self, pods: Pods, trust_domain: str, *, own: tuple[str, str] | None = None, proc: Path = Path("/proc")
    ) -> None:
        self._pods, self._trust_domain, self._own, self._proc = pods, trust_domain, own, proc

    async def identify(self, _socket_path: str, caller: Credentials | None) -> str:
        """The SPIFFE ID of the caller's pod. Raises `Refused`, with what it is instead of a pod of this node."""
        assert caller is not None  # these sockets are unix sockets
        try:
            namespace, name = await self._pod_of(caller)
        except Refused as error:
            refused = Refused(f"no identity is issued to pid {caller.pid}, uid {caller.uid}: {error.detail}")
            log.info("refused", error=refused.detail)
            raise refused from None
        return f"spiffe://{self._trust_domain}/ns/{namespace}/pod/{name}"

    async def _pod_of(self, caller: Credentials) -> tuple[str, str]:
        groups, own = self._groups_of(caller), self._groups("self")
        if self._own is not None and is_own_container(groups, own):
            return self._own
        return await self._pods.named(pod_uid(groups, own if self._is_in_a_namespace() else ""))

    def _groups_of(self, caller: Credentials) -> str:
        """The caller's control groups.

        The number of a process that has ended may be another's by now. So it is looked at while the process lives: if
        it lives afterwards, what was read was its own.
        """
        if not caller.pid:
            raise Refused("its process cannot be seen from here; `nsm identity` needs hostPID: true")
        groups = self._groups(str(caller.pid))
        if not groups or not caller.is_alive():
            raise Refused("its process has ended")
        return groups

    def _is_in_a_namespace(self) -> bool:
        """Whether our control groups are those of a namespace, not of the node: paths begin elsewhere then."""
        try:
            return (self._proc / "self" / "ns" / "cgroup").stat().st_ino != _FIRST_CGROUP_NAMESPACE
        except OSError:
            return False

    def _groups(self, process: str) -> str:
        """As the kernel writes them, byte by byte: read as text, a carriage return in a name would end a line."""
        try:
            return (self._proc / process / "cgroup").read_bytes().decode(errors="surrogateescape")
        except OSError:
            return ""
