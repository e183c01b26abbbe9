"""What is asked of an API server, and what it refuses as one line."""

import asyncio

import pytest

from nsm.kube import (
    CONFIG_MAPS,
    NODES,
    Forbidden,
    ObjectConflict,
    ObjectMissing,
    Rejected,
    Resource,
    Unauthorized,
    Unreachable,
    connect,
)

from .stand_in import forbidden

MAPS = "/api/v1/namespaces/x/configmaps"


def status(code, message, reason=""):
    return lambda request: {"kind": "Status", "code": code, "message": message, "reason": reason}


def a_map(name="a", **data):
    return {"metadata": {"name": name, "namespace": "x"}, "data": data}


async def test_an_object_from_made_to_deleted(server, api):
    made = await api.create(CONFIG_MAPS, a_map(one="1"), "x")
    assert (made["apiVersion"], made["kind"], made["data"]) == ("v1", "ConfigMap", {"one": "1"})
    replaced = await api.replace(CONFIG_MAPS, {**made, "data": {"two": "2"}})
    assert replaced["data"] == {"two": "2"}
    patched = await api.patch(CONFIG_MAPS, "a", {"data": {"three": "3"}}, "x")
    assert await api.get(CONFIG_MAPS, "a", "x") == patched
    assert patched["data"] == {"two": "2", "three": "3"}
    await api.delete(CONFIG_MAPS, "a", "x")
    assert server.paths() == []


async def test_an_object_that_somebody_else_changed_is_not_written_over(server, api):
    made = await api.create(CONFIG_MAPS, a_map(), "x")
    server.put(f"{MAPS}/a", data={"theirs": "1"})
    with pytest.raises(ObjectConflict, match="cannot update configmaps 'a' in namespace 'x': .*modified"):
        await api.replace(CONFIG_MAPS, made)
    with pytest.raises(ObjectConflict):
        await api.delete(CONFIG_MAPS, "a", "x", version=made["metadata"]["resourceVersion"])
    with pytest.raises(ObjectConflict):
        await api.delete(CONFIG_MAPS, "a", "x", uid="another")
    assert server.at(f"{MAPS}/a")["data"] == {"theirs": "1"}


async def test_a_name_that_is_taken(server, api):
    server.put(f"{MAPS}/a")
    with pytest.raises(ObjectConflict, match="cannot create configmaps in namespace 'x': 'a' already exists"):
        await api.create(CONFIG_MAPS, a_map(), "x")


async def test_no_such_object(api):
    with pytest.raises(ObjectMissing, match="cannot get configmaps 'a' in namespace 'x': 'a' not found"):
        await api.get(CONFIG_MAPS, "a", "x")


async def test_no_such_kind_of_object_asks_for_its_definition():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n404 page not found")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as bare:
        port = bare.sockets[0].getsockname()[1]
        async with connect(f"http://127.0.0.1:{port}") as api:
            with pytest.raises(
                ObjectMissing, match=r"does not know widgets.example.org; is its definition \(CRD\) applied"
            ):
                await api.list(Resource("example.org", "v1", "widgets", "Widget"))


async def test_a_missing_permission_is_named(server, api):
    server.refuse = forbidden
    with pytest.raises(Forbidden) as caught:
        await api.create(CONFIG_MAPS, a_map(), "x")
    assert str(caught.value) == (
        "system:serviceaccount:nsm-system:registry may not create configmaps in namespace 'x': "
        "grant it the verb 'create' on configmaps by a Role"
    )
    with pytest.raises(
        Forbidden, match="list nodes in the cluster: grant it the verb 'list' on nodes by a ClusterRole"
    ):
        await api.list(NODES)


async def test_what_is_forbidden_by_a_quota_is_not_taken_for_a_missing_permission(server, api):
    server.refuse = status(403, 'configmaps "a" is forbidden: exceeded quota: few, requested: 1')
    with pytest.raises(Forbidden, match="forbids to create configmaps in namespace 'x': .*exceeded quota"):
        await api.create(CONFIG_MAPS, a_map(), "x")


async def test_an_object_that_breaks_its_schema(server, api):
    server.refuse = status(422, "spec.payload: Invalid value", "Invalid")
    with pytest.raises(Rejected, match="refuses to create configmaps in namespace 'x': spec.payload: Invalid value"):
        await api.create(CONFIG_MAPS, a_map(), "x")


@pytest.mark.parametrize("code", [429, 500, 503, 504])
async def test_a_server_that_cannot_now(server, api, code):
    server.refuse = status(code, "etcdserver: leader changed")
    with pytest.raises(Unreachable, match="cannot get configmaps 'a' in namespace 'x' now: etcdserver: leader changed"):
        await api.get(CONFIG_MAPS, "a", "x")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (413, "Request entity too large: limit is 3145728"),
        (500, "etcdserver: request is too large"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2200435 vs. 2097152)",
        ),
    ],
)
async def test_an_object_that_is_too_large_is_no_fault_of_the_server(server, api, code, said):
    server.refuse = status(code, said)
    with pytest.raises(Rejected, match="refuses to create configmaps in namespace 'x': .*large"):
        await api.create(CONFIG_MAPS, a_map(), "x")


async def test_a_token_that_has_ended(server, api):
    server.refuse = status(401, "Unauthorized")
    with pytest.raises(Unauthorized, match="cannot get configmaps.* rejects our token or certificate"):
        await api.get(CONFIG_MAPS, "a", "x")


async def test_a_server_that_is_not_there(server, api):
    await server.stop()
    with pytest.raises(
        Unreachable, match="cannot get configmaps 'a' in namespace 'x': .* cannot be reached: .*Connect call failed"
    ):
        await api.get(CONFIG_MAPS, "a", "x")
    await server.start()


async def test_something_else_that_answers_there():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as bare:
        port = bare.sockets[0].getsockname()[1]
        async with connect(f"http://127.0.0.1:{port}") as api:
            with pytest.raises(
                Unreachable, match="cannot get version in the cluster: the response is not from an API server"
            ):
                await api.version()


async def test_a_watch_that_nobody_ends_is_given_up(monkeypatch):
    monkeypatch.setattr("nsm.kube.api._LATE", 0.1)
    given_up = asyncio.Event()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await given_up.wait()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as mute:
        port = mute.sockets[0].getsockname()[1]
        async with connect(f"http://127.0.0.1:{port}") as api:
            with pytest.raises(
                Unreachable, match="cannot watch configmaps in all namespaces: .* did not respond in time"
            ):
                async with asyncio.timeout(5), api.watch(CONFIG_MAPS, version="1", seconds=0.1) as events:
                    await anext(events)
        given_up.set()


async def test_the_version_of_the_server(api):
    assert (await api.version())["gitVersion"] == "v1.34.4"
