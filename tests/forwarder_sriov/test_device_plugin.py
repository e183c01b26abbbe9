"""The device plugins, and a kubelet that gives their tokens to pods and is started again."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from nsm.chains.core import Unavailable
from nsm.chains.model.sriov import tokens_in
from nsm.forwarder_sriov.device_plugin import DevicePlugins
from nsm.forwarder_sriov.kubelet import PodResources
from nsm.forwarder_sriov.tokens import State, Tokens
from tests.forwarder_sriov.kubelet import Kubelet

A, B = "worker.domain/10G", "worker.domain/intel"


@pytest.fixture
def tokens():
    return Tokens({"card": (A, B)}, {"card": 2})


@pytest.fixture
def folder():
    """A short path: those of sockets have at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="kubelet-") as name:
        yield Path(name)


def plugins_of(tokens, kubelet, poll=60):
    resources = PodResources(str(kubelet.resources), set(tokens.names()))
    return DevicePlugins(str(kubelet.plugins), tokens, resources, poll=poll)


async def test_the_kubelet_gets_the_tokens_of_each_name_and_pods_find_theirs_in_the_environment(tokens, folder):
    async with Kubelet(folder) as kubelet, plugins_of(tokens, kubelet):
        await kubelet.until(lambda: set(kubelet.devices) == {A, B})
        assert sorted(kubelet.registered) == [A, B]
        first, second = kubelet.healthy(A)
        environment = await kubelet.start_pod("client", A, first, second)
        assert tokens_in(environment) == {A: (first, second)}
        assert tokens.state(first) is State.ALLOCATED
        await kubelet.until(lambda: kubelet.healthy(B) == [])  # no function is left for them


async def test_a_token_that_another_name_has_used_up_is_refused_to_the_kubelet(tokens, folder):
    async with Kubelet(folder) as kubelet, plugins_of(tokens, kubelet):
        await kubelet.until(lambda: set(kubelet.devices) == {A, B})
        of_b = kubelet.healthy(B)
        await kubelet.start_pod("client", A, *kubelet.healthy(A))
        with pytest.raises(Exception, match="no virtual function is left"):
            await kubelet.start_pod("late", B, of_b[0])


async def test_plugins_register_again_with_a_kubelet_that_was_started_again(tokens, folder, monkeypatch):
    """It has removed their sockets."""
    monkeypatch.setattr("nsm.forwarder_sriov.device_plugin._LOOK", 0.01)
    first = Kubelet(folder)
    async with plugins_of(tokens, first):
        async with first:
            await first.until(lambda: set(first.devices) == {A, B})
        async with Kubelet(folder) as second:
            await second.until(lambda: set(second.devices) == {A, B})
            assert second.devices == first.devices


async def test_a_forwarder_that_starts_before_the_kubelet_registers_later(tokens, folder, monkeypatch):
    monkeypatch.setattr("nsm.forwarder_sriov.device_plugin._LOOK", 0.01)
    kubelet = Kubelet(folder)
    async with plugins_of(tokens, kubelet) as plugins:
        await plugins.restore()
        async with kubelet:
            await kubelet.until(lambda: set(kubelet.devices) == {A, B})


async def test_a_restarted_forwarder_knows_the_tokens_of_running_pods(tokens, folder):
    old = ["sriov-" + f"{n:08d}-0000-0000-0000-000000000000" for n in range(2)]
    async with Kubelet(folder) as kubelet:
        kubelet.pods = {"client": (A, old[:1])}
        plugins = plugins_of(tokens, kubelet)
        await plugins.restore()
        assert tokens.state(old[0]) is State.ALLOCATED
        assert await plugins._resources.pod_of(old[0]) == ("default", "client")
        async with plugins:
            await kubelet.until(lambda: set(kubelet.devices) == {A, B})
            assert old[0] in kubelet.devices[A]
            assert len(kubelet.healthy(B)) == 1


async def test_a_token_is_free_when_no_pod_has_had_it_twice_in_a_row(tokens, folder):
    """A pod that is just being created is not listed yet."""
    kubelet = Kubelet(folder)
    plugins = plugins_of(tokens, kubelet)
    token, other = [*tokens.of(A)][:2]
    tokens.allocate([token, other])
    tokens.use(other, "card")
    plugins.compare({other})
    assert tokens.state(token) is State.ALLOCATED
    plugins.compare({other})
    assert (tokens.state(token), tokens.state(other)) == (State.FREE, State.IN_USE)


async def test_restored_tokens_are_freed_like_others(tokens, folder):
    """Upstream keeps those for ever."""
    async with Kubelet(folder) as kubelet:
        old = "sriov-00000000-0000-0000-0000-000000000000"
        kubelet.pods = {"client": (A, [old])}
        plugins = plugins_of(tokens, kubelet, poll=0.01)
        await plugins.restore()
        kubelet.pods = {}
        async with plugins, asyncio.timeout(5):
            while tokens.state(old) is not State.FREE:
                await asyncio.sleep(0.01)


async def test_only_an_unknown_token_is_asked_for(tokens, folder):
    async with Kubelet(folder) as kubelet:
        kubelet.pods = {"client": (A, ["sriov-a"])}
        resources = PodResources(str(kubelet.resources), {A})
        assert [await resources.pod_of("sriov-a") for _ in range(3)] == [("default", "client")] * 3
        assert kubelet.asked == 1
        assert await resources.pod_of("sriov-b") is None


async def test_a_kubelet_that_does_not_answer_is_no_answer(tokens, folder):
    kubelet = Kubelet(folder)
    with pytest.raises(Unavailable, match="the kubelet does not say at .*pod-resources/kubelet.sock which pods"):
        await PodResources(str(kubelet.resources), {A}).pod_of("sriov-a")
