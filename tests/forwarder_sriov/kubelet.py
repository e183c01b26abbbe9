"""A kubelet as far as device plugins see it: it registers them, follows their devices, and gives them to pods."""

import asyncio
import contextlib
import os

from grpclib.client import Channel

from nsm.apis.codec import Codec
from nsm.apis.deviceplugin import (
    AllocateRequest,
    ContainerAllocateRequest,
    DevicePluginStub,
    Empty,
    RegisterRequest,
)
from nsm.apis.podresources import (
    ContainerDevices,
    ContainerResources,
    ListPodResourcesRequest,
    ListPodResourcesResponse,
    PodResources,
)
from nsm.chains.transport import SocketAccess, Unary, serve_plain

ACCESS = SocketAccess(mode=0o600)


class Kubelet:
    """Its two sockets are in `folder`; those of plugins it removes when it starts. `devices` are those of each resource, by whether they are healthy."""

    def __init__(self, folder):
        self.plugins, self.resources = folder / "device-plugins", folder / "pod-resources"
        for each in (self.plugins, self.resources):
            each.mkdir(parents=True, exist_ok=True)
        self.registered, self.devices, self.pods, self.asked = [], {}, {}, 0
        self._follows, self._news, self._stack = [], asyncio.Condition(), contextlib.AsyncExitStack()

    async def __aenter__(self):
        for left in self.plugins.iterdir():
            left.unlink()
        methods = {"/v1beta1.Registration/Register": Unary(RegisterRequest, self._register)}
        listing = {"/v1.PodResourcesLister/List": Unary(ListPodResourcesRequest, self._list)}
        for folder, served in ((self.plugins, methods), (self.resources, listing)):
            path = folder / "kubelet.sock"
            await self._stack.enter_async_context(serve_plain(str(path), served, name="kubelet", access=ACCESS))
        return self

    async def __aexit__(self, *_):
        for task in self._follows:
            task.cancel()
        await asyncio.gather(*self._follows, return_exceptions=True)
        await self._stack.aclose()

    async def _register(self, request, _incoming):
        assert request.version == "v1beta1"
        self.registered.append(request.resource_name)
        self._follows.append(asyncio.ensure_future(self._follow(request.resource_name, request.endpoint)))
        return Empty()

    async def _follow(self, name, endpoint):
        channel = Channel(path=os.path.join(self.plugins, endpoint), codec=Codec())
        try:
            stub = DevicePluginStub(channel)
            await stub.get_device_plugin_options(Empty())
            async for response in stub.list_and_watch(Empty()):
                async with self._news:
                    self.devices[name] = {each.id: each.health for each in response.devices}
                    self.endpoints = {**getattr(self, "endpoints", {}), name: endpoint}
                    self._news.notify_all()
        finally:
            channel.close()

    async def until(self, condition):
        """Wait until what the plugins said fulfils a condition."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(condition)

    def healthy(self, name):
        return [each for each, health in self.devices[name].items() if health == "Healthy"]

    async def start_pod(self, pod, name, *tokens):
        """Give devices to a pod in the namespace `default`; its environment."""
        channel = Channel(path=os.path.join(self.plugins, self.endpoints[name]), codec=Codec())
        try:
            request = AllocateRequest(container_requests=[ContainerAllocateRequest(devices_ids=list(tokens))])
            (answer,) = (await DevicePluginStub(channel).allocate(request)).container_responses
        finally:
            channel.close()
        self.pods[pod] = (name, tokens)
        return answer.envs

    async def _list(self, _request, _incoming):
        self.asked += 1
        pods = [
            PodResources(
                name=pod,
                namespace="default",
                containers=[
                    ContainerResources(
                        name="main",
                        devices=[
                            ContainerDevices(resource_name=name, device_ids=list(tokens)),
                            ContainerDevices(resource_name="example.com/gpu", device_ids=["0"]),
                        ],
                    )
                ],
            )
            for pod, (name, tokens) in self.pods.items()
        ]
        return ListPodResourcesResponse(pod_resources=pods)
