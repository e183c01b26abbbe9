"""The device plugins by which the kubelet gives tokens to containers: one for each name, on a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType

from grpclib.client import Channel

from nsm.apis import deviceplugin as api
from nsm.apis.codec import Codec
from nsm.chains.core import Backoff, MeshError, Tasks
from nsm.chains.logs import log
from nsm.chains.model.sriov import VARIABLE
from nsm.chains.transport import Incoming, Methods, SocketAccess, Streaming, Unary, serve_plain

from .kubelet import FAULTS, SOCKET, PodResources, told
from .tokens import State, Tokens

_LOOK = 0.5
"""Seconds between two looks whether the kubelet has started again: it makes its socket anew then."""
_REGISTER_TIMEOUT = 15.0
_ROOT_ONLY = SocketAccess(mode=0o600)
_SERVICE = "/v1beta1.DevicePlugin/"


class DevicePlugins:
    """An async context manager: the plugins are served, and registered whenever the kubelet starts.

    `folder` is the kubelet's folder of plugins. Every `poll` seconds the kubelet is asked what pods have; a token that
    none has twice in a row is free again.
    """

    def __init__(self, folder: str, tokens: Tokens, resources: PodResources, *, poll: float) -> None:
        self._folder, self._tokens, self._resources, self._poll = folder, tokens, resources, poll
        self._sockets = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in tokens.names()}
        self._stack, self._tasks = AsyncExitStack(), Tasks("device plugins")
        self._served: dict[str, tuple[int, int] | None] = {}
        """Our sockets by their paths."""
        self._changed: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self._sockets}
        self._missed: set[str] = set()
        tokens.on_change(self._tell)

    async def __aenter__(self) -> DevicePlugins:
        await self._serve()
        self._tasks.spawn(self._keep_registered(), name="registration at the kubelet")
        self._tasks.spawn(self._follow_pods(), name="pods that have tokens")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()
        await self._stack.aclose()

    async def _serve(self) -> None:
        """Serve on sockets of our own, unless they are all there: a kubelet that starts removes those of before."""
        paths = {name: os.path.join(self._folder, socket) for name, socket in self._sockets.items()}
        if self._served == {path: _identity(path) for path in paths.values()}:
            return
        await self._stack.aclose()
        for name, path in paths.items():
            await self._stack.enter_async_context(
                serve_plain(path, self.methods(name), name=f"device plugin {name}", access=_ROOT_ONLY)
            )
        self._served = {path: _identity(path) for path in paths.values()}

    def methods(self, name: str) -> Methods:
        """The plugin's service for the tokens of a name."""

        async def options(_request: api.Empty, _incoming: Incoming) -> api.DevicePluginOptions:
            return api.DevicePluginOptions()

        async def watch(_request: api.Empty, _incoming: Incoming) -> AsyncIterator[Sequence[api.ListAndWatchResponse]]:
            changed = self._changed[name]
            while True:
                changed.clear()
                yield [self._devices(name)]
                await changed.wait()

        async def allocate(request: api.AllocateRequest, _incoming: Incoming) -> api.AllocateResponse:
            return self._allocate(name, request)

        async def prefer(
            _request: api.PreferredAllocationRequest, _incoming: Incoming
        ) -> api.PreferredAllocationResponse:
            return api.PreferredAllocationResponse()

        async def pre_start(
            _request: api.PreStartContainerRequest, _incoming: Incoming
        ) -> api.PreStartContainerResponse:
            return api.PreStartContainerResponse()

        return {
            f"{_SERVICE}GetDevicePluginOptions": Unary(api.Empty, options),
            f"{_SERVICE}ListAndWatch": Streaming(api.Empty, watch),
            f"{_SERVICE}GetPreferredAllocation": Unary(api.PreferredAllocationRequest, prefer),
            f"{_SERVICE}Allocate": Unary(api.AllocateRequest, allocate),
            f"{_SERVICE}PreStartContainer": Unary(api.PreStartContainerRequest, pre_start),
        }

    async def restore(self) -> None:
        """At the start, before tokens are served: those that pods have keep their ids."""
        try:
            given = await self._resources.given()
        except MeshError as error:
            log.warning("the tokens of running pods are not known", error=str(error))
            return
        allocated: dict[str, list[str]] = {}
        for token, one in given.items():
            allocated.setdefault(one.name, []).append(token)
        self._tokens.restore(allocated)

    def _devices(self, name: str) -> api.ListAndWatchResponse:
        health = {True: api.HEALTHY, False: api.UNHEALTHY}
        devices = [api.Device(id=token, health=health[is_good]) for token, is_good in self._tokens.of(name).items()]
        return api.ListAndWatchResponse(devices=devices)

    def _allocate(self, name: str, request: api.AllocateRequest) -> api.AllocateResponse:
        containers = [list(each.devices_ids) for each in request.container_requests]
        self._tokens.allocate([token for ids in containers for token in ids])
        self._missed.clear()
        variable = f"{VARIABLE}{name}"
        return api.AllocateResponse(
            container_responses=[api.ContainerAllocateResponse(envs={variable: ",".join(ids)}) for ids in containers]
        )

    def _tell(self) -> None:
        for changed in self._changed.values():
            changed.set()

    # --- the kubelet

    async def _keep_registered(self) -> None:
        path, seen = os.path.join(self._folder, SOCKET), None
        pauses, reason = Backoff(_LOOK, 5.0), ""
        while True:
            found = _identity(path)
            if found is not None and found != seen:
                try:
                    await self._serve()
                    for name in self._sockets:
                        await self._register(path, name)
                    seen, reason = found, ""
                    pauses.reset()
                    log.info("registered with the kubelet", resources=list(self._sockets))
                except (*FAULTS, MeshError) as error:
                    if told(error) != reason:
                        reason = told(error)
                        log.warning("cannot register with the kubelet yet", socket=path, reason=reason)
                    await asyncio.sleep(pauses.next())
                    continue
            await asyncio.sleep(_LOOK)

    async def _register(self, path: str, name: str) -> None:
        channel = Channel(path=path, codec=Codec())
        try:
            await api.RegistrationStub(channel).register(
                api.RegisterRequest(version=api.VERSION, endpoint=self._sockets[name], resource_name=name),
                timeout=_REGISTER_TIMEOUT,
            )
        finally:
            channel.close()

    async def _follow_pods(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            try:
                given = await self._resources.given()
            except MeshError as error:
                log.warning("cannot see which pods have tokens", error=str(error))
                continue
            self.compare(set(given))

    def compare(self, given: set[str]) -> None:
        """Free the tokens that no pod has had twice in a row; a pod that is being created has none at first."""
        missing = {
            token
            for name in self._sockets
            for token in self._tokens.of(name)
            if token not in given and self._tokens.state(token) in (State.ALLOCATED, State.IN_USE)
        }
        for token in missing & self._missed:
            with contextlib.suppress(MeshError):
                self._tokens.free(token)
        self._missed = missing - self._missed
        self._tell()


def _identity(path: str) -> tuple[int, int] | None:
    """What tells one socket from the next one at the same path."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
