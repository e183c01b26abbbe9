"""Several services on one client: asked for together, closed together, and what one of them does is its own affair."""

import asyncio
import contextlib
import json
import os
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.component import Runtime
from nsm.chains.composed import endpoints_client, services_client
from nsm.chains.config import ConfigError, load
from nsm.chains.core import Element, InvalidRequest, RegistryCall
from nsm.chains.elements import refresh
from nsm.chains.registry.descriptors import SendUrl
from nsm.services.nsc.config import NscConfig, NscInitConfig
from nsm.services.nsc.main import connect_once, keep
from tests.services.mesh_in_process import NOTHING, Mesh


class AllAtOnce(Element):
    """Lets nobody pass before `count` requests, and later as many closes, are here."""

    def __init__(self, count):
        self._requests, self._closes = asyncio.Barrier(count), asyncio.Barrier(count)

    async def request(self, call, rest):
        await self._requests.wait()
        return await rest.request(call)

    async def close(self, call, rest):
        await self._closes.wait()
        await rest.close(call)


@contextlib.asynccontextmanager
async def client(tmp_path, monkeypatch, main, kind, services, *, extra=(), **more):
    """A client's main in a task, in a mesh that is a process; gives the mesh, what the client runs with, and its log."""
    async with mesh_of(tmp_path, monkeypatch, extra) as mesh:
        runtime = Runtime(mesh.identities["client"], mesh.pools["client"], asyncio.Event())
        with capture_logs() as logs:
            running = asyncio.ensure_future(main(configuration(mesh, kind, services, **more), runtime))
            try:
                yield mesh, runtime, running, logs
            finally:
                runtime.stopping.set()
                await asyncio.wait([running], timeout=10)


@contextlib.asynccontextmanager
async def mesh_of(tmp_path, monkeypatch, extra=()):
    async with AsyncExitStack() as stack:
        mesh = await Mesh(tmp_path, monkeypatch).start(stack, extra=extra)
        stack.push_async_callback(mesh.close)
        mesh.begins.pop("client")  # the client under test has its own
        yield mesh


def configuration(mesh, kind, services, **more):
    environment = {
        "NSM_NAME": "client",
        "NSM_CONNECT_TO": mesh.url("nsmgr"),
        "NSM_NETWORK_SERVICES": services,
        "NSM_REQUEST_TIMEOUT": "10s",
        **({"NSM_LIVENESS_CHECK_ENABLED": "false"} if kind is NscConfig else {}),  # there are no interfaces to check
        **more,
    }
    return load(kind, environment).config


def told(logs, event):
    return [line for line in logs if line["event"] == event]


async def until(condition):
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.005)


THREE = "kernel://icmp/nsm-1,kernel://icmp/nsm-2?app=web,kernel://icmp/nsm-3?app=db&zone=a"


async def test_several_wires_are_asked_for_together_and_closed_together(tmp_path, monkeypatch):
    """The endpoint answers none before all three are there; then the client says that it is ready, once."""
    monkeypatch.setattr("nsm.services.nsc.wires._HEAD_START", 0.01)
    start = client(tmp_path, monkeypatch, keep, NscConfig, THREE, extra=[AllAtOnce(3)])
    async with start as (mesh, runtime, running, logs):
        await until(lambda: told(logs, "ready"))
        assert sorted(line["connection"] for line in told(logs, "wire up")) == ["client-0", "client-1", "client-2"]
        assert sorted(line["interface"] for line in told(logs, "wire up")) == ["nsm-1", "nsm-2", "nsm-3"]
        assert told(logs, "ready") == [{"event": "ready", "connections": 3, "log_level": "info"}]
        runtime.stopping.set()
        await asyncio.wait_for(running, 8)
        assert told(logs, "closing failed") == []
        assert mesh.left() == ({name: 0 for name in NOTHING[0] if name != "client"}, 0)


class Slow(Element):
    """Takes longer, the earlier a request comes."""

    def __init__(self, seconds):
        self._seconds = list(seconds)

    async def request(self, call, rest):
        await asyncio.sleep(self._seconds.pop(0))
        return await rest.request(call)


async def test_wires_get_their_addresses_in_their_order_and_not_by_chance(tmp_path, monkeypatch):
    """As upstream's `exclude-prefixes-client` has it: endpoints with one prefix give the first wire the first ones."""
    start = client(tmp_path, monkeypatch, keep, NscConfig, THREE, extra=[Slow([0.2, 0.1, 0])])
    async with start as (_, _, _, logs):
        await until(lambda: told(logs, "ready"))
        assert [line["connection"] for line in told(logs, "wire up")] == ["client-0", "client-1", "client-2"]


async def test_a_wire_that_cannot_be_had_holds_up_no_other(tmp_path, monkeypatch):
    """Only the client's `ready` waits for it; it comes when the service does."""
    services = "kernel://icmp/nsm-1,kernel://missing/nsm-2,kernel://icmp/nsm-3"
    async with client(tmp_path, monkeypatch, keep, NscConfig, services) as (mesh, _, _, logs):
        await until(lambda: len(told(logs, "wire up")) == 2)
        assert {line["service"] for line in told(logs, "no wire yet")} <= {"missing"}
        assert told(logs, "ready") == []
        services = services_client(mesh.url("nsmgr"), mesh.pools["nse"])
        await services.register(RegistryCall(NetworkService(name="missing", payload="IP")))
        await mesh.register("nse", "missing", {})
        await until(lambda: told(logs, "ready"))
        await services.aclose()


async def test_a_client_whose_tokens_are_of_the_past_says_that_it_is_denied(tmp_path, monkeypatch):
    """As upstream's example of a policy has it: NSM_MAX_TOKEN_LIFETIME=-1m, and its log is searched for this."""
    assert load(NscConfig, {"NSM_MAX_TOKEN_LIFETIME": "-1m"}).config.max_token_lifetime == -60
    with capture_logs() as logs:
        async with mesh_of(tmp_path, monkeypatch) as mesh:
            mesh.identities["client"].token_lifetime = -60.0
            runtime = Runtime(mesh.identities["client"], mesh.pools["client"], asyncio.Event())
            running = asyncio.ensure_future(keep(configuration(mesh, NscConfig, "kernel://icmp"), runtime))
            await until(lambda: told(logs, "no wire yet"))
            runtime.stopping.set()
            await asyncio.wait_for(running, 8)
    line = json.dumps(told(logs, "no wire yet")[0])
    assert re.search(r"PermissionDenied.*no sufficient privileges: tokens_expired", line)


async def test_a_file_says_that_all_wires_are_up_while_they_are(tmp_path, monkeypatch):
    """One that an earlier client left says nothing."""
    file = tmp_path / "ready" / "has-wires"
    file.parent.mkdir()
    file.touch()
    start = client(
        tmp_path, monkeypatch, keep, NscConfig, "kernel://icmp/nsm-1,kernel://missing/nsm-2", NSM_READY_FILE=str(file)
    )
    async with start as (mesh, runtime, running, logs):
        await until(lambda: told(logs, "wire up") and told(logs, "no wire yet"))
        assert not file.exists()
        why = Path(f"{file}.why").read_text()
        assert why == "no wire to 'missing': nsmgr: network service 'missing' is not found (discover_forwarder)\n"
        services = services_client(mesh.url("nsmgr"), mesh.pools["nse"])
        await services.register(RegistryCall(NetworkService(name="missing", payload="IP")))
        await mesh.register("nse", "missing", {})
        await until(lambda: told(logs, "ready"))
        assert os.listdir(tmp_path / "ready") == ["has-wires"]
        await services.aclose()
        runtime.stopping.set()
        await asyncio.wait_for(running, 8)
        assert os.listdir(tmp_path / "ready") == []


async def test_the_file_is_away_while_a_wire_is_whose_endpoint_comes_back_under_another_name(tmp_path, monkeypatch):
    """As the next pod of a Deployment does, whose name is the endpoint's."""
    monkeypatch.setattr(refresh, "GRACE", 0.1)
    file = tmp_path / "has-wires"
    async with client(tmp_path, monkeypatch, keep, NscConfig, "kernel://icmp/nsm-1", NSM_READY_FILE=str(file)) as (
        mesh,
        runtime,
        _,
        _,
    ):
        runtime.identity.token_lifetime = 1.0  # a fifth of a second between refreshes
        await until(file.exists)
        await mesh.chains["nse registration"].unregister(RegistryCall(NetworkServiceEndpoint(name="nse")))
        await until(lambda: not file.exists())
        await until(lambda: "no endpoint of 'icmp' is registered" in Path(f"{file}.why").read_text())
        next_one = endpoints_client(mesh.url("nsmgr"), mesh.pools["nse"], [SendUrl()])
        record = NetworkServiceEndpoint(name="nse-2", network_service_names=["icmp"], url=mesh.url("nse"))
        await next_one.register(RegistryCall(record))
        await until(file.exists)
        assert mesh.left()[1] == 1
        await next_one.aclose()


async def test_a_ready_file_in_no_folder_is_one_line_and_the_client_ends(tmp_path, monkeypatch):
    start = client(tmp_path, monkeypatch, keep, NscConfig, "kernel://icmp", NSM_READY_FILE=str(tmp_path / "no/file"))
    async with start as (_, _, running, _):
        with pytest.raises(InvalidRequest, match="NSM_READY_FILE='.*/no/file' cannot be written: No such file"):
            await asyncio.wait_for(running, 8)


async def test_a_client_that_is_stopped_before_all_wires_are_there_closes_those_that_are(tmp_path, monkeypatch):
    services = "kernel://icmp/nsm-1,kernel://missing/nsm-2"
    async with client(tmp_path, monkeypatch, keep, NscConfig, services) as (mesh, runtime, running, logs):
        await until(lambda: told(logs, "wire up") and told(logs, "no wire yet"))
        runtime.stopping.set()
        await asyncio.wait_for(running, 8)
        assert told(logs, "ready") == []
        assert mesh.left()[1] == 0


async def test_a_client_that_asks_once_ends_when_all_wires_are_there_and_leaves_them(tmp_path, monkeypatch):
    start = client(tmp_path, monkeypatch, connect_once, NscInitConfig, THREE, extra=[AllAtOnce(3)])
    async with start as (mesh, _, running, _):
        await asyncio.wait_for(running, 8)
        assert mesh.left()[1] == 3


async def test_a_client_that_asks_once_and_is_stopped_too_early_says_so(tmp_path, monkeypatch):
    services = "kernel://icmp/nsm-1,kernel://missing/nsm-2"
    async with client(tmp_path, monkeypatch, connect_once, NscInitConfig, services) as (_, runtime, running, logs):
        await until(lambda: told(logs, "wire up"))
        runtime.stopping.set()
        with pytest.raises(InvalidRequest, match="stopped before all wires were there"):
            await asyncio.wait_for(running, 8)


async def test_a_client_follows_its_file_of_services(tmp_path, monkeypatch):
    """What is added appears, what is removed goes, the rest is untouched; the ready file is there while all are."""
    monkeypatch.setattr("nsm.services.nsc.services.LOOK", 0.01)
    file, ready = tmp_path / "services", tmp_path / "ready"
    file.write_text("kernel://icmp/nsm-1\nkernel://icmp/nsm-2  # the second\n")
    more = {"NSM_NETWORK_SERVICES_FILE": str(file), "NSM_READY_FILE": str(ready)}
    async with client(tmp_path, monkeypatch, keep, NscConfig, "kernel://icmp/before", **more) as (
        mesh,
        _,
        running,
        logs,
    ):
        await until(lambda: told(logs, "ready"))
        untouched = next(wire for wire in mesh.kernel.wires.values() if "nsm-2" in str(wire.wire))
        file.write_text("kernel://icmp/nsm-2\nkernel://missing/nsm-3\nkernel://icmp/nsm-4\n")
        await until(lambda: told(logs, "wire closed") and len(told(logs, "wire up")) == 3 and not ready.exists())
        assert {line["connection"]: line["interface"] for line in told(logs, "wire up")} == {
            "client-0": "nsm-1",
            "client-1": "nsm-2",
            "client-2": "nsm-4",
        }
        assert told(logs, "wire closed")[0]["connection"] == "client-0"
        assert untouched in mesh.kernel.wires.values()
        file.write_text("kernel://icmp/nsm-2\nkernel://icmp/nsm-4?\n")
        await until(lambda: told(logs, "the file of services cannot be used; wires stay unchanged"))
        assert len(mesh.kernel.wires) == 2
        file.write_text("kernel://icmp/nsm-2,kernel://icmp/nsm-4")
        await until(ready.exists)
        assert [
            (line["added"], line["removed"], line["kept"]) for line in told(logs, "the list of services has changed")
        ] == [
            (2, 1, 1),
            (0, 1, 2),
        ]
        assert untouched in mesh.kernel.wires.values()
        assert not running.done()


@pytest.mark.parametrize(
    ("services", "more", "same"),
    [
        ("kernel://icmp/nsm-1", {}, True),
        ("kernel://icmp/nsm-1", {"NODE_NAME": "n"}, True),
        ("kernel://icmp", {}, True),
        ("kernel://other/nsm-1", {}, False),
        ("kernel://icmp/nsm-2", {}, False),
        ("kernel://icmp/nsm-1?app=web", {}, False),
    ],
)
async def test_a_client_that_comes_back_keeps_its_wire_if_it_asks_for_the_same_and_else_gets_what_it_asks_for(
    tmp_path, monkeypatch, services, more, same
):
    """And the earlier wire goes."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        both = services_client(mesh.url("nsmgr"), mesh.pools["nse"])
        await both.register(RegistryCall(NetworkService(name="other", payload="IP")))
        runtime = Runtime(mesh.identities["client"], mesh.pools["client"], asyncio.Event())
        await connect_once(configuration(mesh, NscInitConfig, "kernel://icmp/nsm-1"), runtime)
        (before,) = mesh.kernel.wires.values()
        if "other" in services:
            await mesh.register("nse", "other", {})
        with capture_logs() as logs:
            await connect_once(configuration(mesh, NscInitConfig, services, **more), runtime)
        (after,) = mesh.kernel.wires.values()
        assert (after is before) == same
        (up,) = told(logs, "wire up")
        assert up["interface"] == ("nsm-2" if "nsm-2" in services else "nsm-1")
        assert up["service"] == ("other" if "other" in services else "icmp")
        assert up["attempts"] == 1
        await both.aclose()


@pytest.mark.parametrize("kind", [NscConfig, NscInitConfig])
def test_one_interface_name_for_two_wires_is_an_error_before_anything_is_asked(kind):
    with pytest.raises(ConfigError, match="interface 'nsm-1' is requested twice; each wire needs its own name"):
        load(kind, {"NSM_NETWORK_SERVICES": "kernel://a/nsm-1,kernel://b/nsm-2?x=y,kernel://b/nsm-1?x=y"})


def test_checks_that_take_longer_than_a_request_are_an_error_before_anything_is_asked():
    given = {"NSM_LIVENESS_CHECK_TIMEOUT": "20s"}
    with pytest.raises(ConfigError, match="a check of 20 seconds does not end within a request of 15: lower NSM_LIVE"):
        load(NscConfig, given)
    assert load(NscConfig, {**given, "NSM_LIVENESS_CHECK_ENABLED": "false"}).config.liveness_check_timeout == 20
    assert load(NscConfig, {**given, "NSM_REQUEST_TIMEOUT": "30s"}).config.liveness_check_interval == 0.2


def test_wires_without_a_name_get_one_each_and_may_be_of_one_service():
    wishes = load(NscConfig, {"NSM_NETWORK_SERVICES": "kernel://a,kernel://a,kernel://a/if1,kernel://b/if2?x=y"}).config
    assert [wish.network_service for wish in wishes.network_services] == ["a", "a", "a", "b"]
    assert wishes.network_services[3].labels == {"x": "y"}
