"""A view's server, with the client that reads it, over real sockets: what it answers, and whom."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise

import aiohttp
import pytest

from nsm.apis.connection import State as Liveness
from nsm.chains.core import Conflict, InvalidRequest, NotFound, Refused, Unavailable
from nsm.chains.metrics import also
from nsm.chains.transport import SocketAccess
from nsm.view import form
from nsm.view.client import ViewClient
from nsm.view.model import Change, ChangeKind, Kind, Wire, WireState
from nsm.view.server import application, serving
from nsm.view.server.dashboard import graph
from nsm.view.server.figures import reader
from nsm.view.server.openapi import document
from tests.view.states import MANAGER, connection, small_mesh

TOKEN = "0123456789abcdef"


@asynccontextmanager
async def served(state, where="tcp://127.0.0.1:0", **options):
    """The URL of a server of `state`."""
    async with serving(application(state, **options), [where], access=SocketAccess()) as (url,):
        yield url


async def read(session, method, url, **options):
    """An answer that was read to its end: its `status`, `headers`, and `text` or what the JSON has."""
    async with session.request(method, url, **options) as answer:
        text = await answer.text()
        answer.said = json.loads(text) if answer.content_type == "application/json" else text
        return answer


async def test_a_client_reads_everything_by_tcp_and_by_a_unix_socket(tmp_path):
    state = small_mesh(wires=200)
    for where in ("tcp://127.0.0.1:0", f"unix://{tmp_path}/view.sock"):
        async with served(state, where) as url, ViewClient.connect(url) as view:
            snapshot = await view.snapshot()
            assert list(snapshot.wires) == state.wires()
            assert list(await view.wires()) == state.wires()
            wire = await view.wire("till/nsm-7")
            assert (wire.id, wire.way, wire.node, wire.endpoint_node) == ("till-7", ("VXLAN",), "node-1", "node-2")
            assert [each.kind for each in wire.path] == [
                Kind.CLIENT,
                Kind.MANAGER,
                Kind.FORWARDER,
                Kind.MANAGER,
                Kind.FORWARDER,
                Kind.ENDPOINT,
            ]
            assert [each.name for each in await view.services()] == ["shop"]
            assert [(each.name, each.wires) for each in await view.endpoints()] == [("shop-7", 200)]
            assert [each.name for each in await view.nodes()] == ["node-1"]
            assert {each.kind for each in await view.components()} == {Kind.REGISTRY, Kind.MANAGER, Kind.FORWARDER}
            assert [each.wires for each in await view.domains()] == [200]
            assert await view.attempts() == ()
            assert (await view.events("till-7"))[0].wire == "till-7"


async def test_wires_are_filtered_and_unclear_names_are_errors():
    state = small_mesh(wires=3)
    state.report(MANAGER, connection(1, state=Liveness.DOWN))
    async with served(state) as url, ViewClient.connect(url) as view:
        assert [each.id for each in await view.wires(down=True)] == ["till-1"]
        assert await view.wires(client="nobody") == ()
        assert len(await view.wires(service="shop", node="node-1")) == 3
        with pytest.raises(NotFound, match="did you mean till/nsm-1"):
            await view.wire("till/nsm_1")
        with pytest.raises(Conflict, match="'till' names 3 wires: till/nsm-0, till/nsm-1, till/nsm-2"):
            await view.wire("till")
        async with aiohttp.ClientSession() as session:
            for path, said in (
                ("/api/v1/wires?kolour=red", "'kolour' is not a filter"),
                ("/api/v1/events?after=x", "after is 'x'; expected a whole number"),
            ):
                answer = await read(session, "GET", url + path)
                assert answer.status == 400
                assert said in answer.said["error"]


async def test_a_wire_that_goes_down_is_in_the_stream_at_once_and_a_broken_stream_goes_on():
    state = small_mesh()
    async with served(state) as url, ViewClient.connect(url) as view:
        changes = view.changes()
        first = await anext(changes)
        assert first.kind is ChangeKind.SNAPSHOT
        assert [each.id for each in first.snapshot.wires] == ["till-0"]
        state.report(MANAGER, connection(state=Liveness.DOWN))
        change = await anext(changes)
        assert (change.kind, change.wire.state, change.wire.cause.component) == (
            ChangeKind.WIRE,
            WireState.DOWN,
            "forwarder-1",
        )
        await changes.aclose()
        state.report(MANAGER, connection())
        again = view.changes(change.position)
        assert (await anext(again)).kind is ChangeKind.EVENT, "that the wire is down, which was not read before"
        assert (await anext(again)).wire.state is WireState.UP
        await again.aclose()


async def test_a_reader_that_sends_last_event_id_as_browsers_do_misses_nothing():
    state = small_mesh()
    async with served(state) as url, aiohttp.ClientSession() as session:
        position = state.stream.position
        state.report(MANAGER, connection(state=Liveness.DOWN))
        async with session.get(f"{url}/api/v1/stream", headers={"Last-Event-ID": position}) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            lines = [(await answer.content.readline()).decode().rstrip() for _ in range(5)]
        assert lines[:2] == ["retry: 1000", ""]
        assert lines[3] == "event: wire"
        change = form.from_json(Change, json.loads(lines[4].removeprefix("data: ")))
        assert (lines[2], change.wire.state) == (f"id: {change.position}", WireState.DOWN)


async def test_what_a_slow_reader_missed_is_replaced_by_a_snapshot():
    state = small_mesh()
    state.stream.__init__(state.snapshot, kept=4)
    changes = state.stream.follow()
    await anext(changes)
    for number in range(1, 9):
        state.report(MANAGER, connection(number))
    whole = await anext(changes)
    assert (whole.kind, len(whole.snapshot.wires)) == (ChangeKind.SNAPSHOT, 9)
    await changes.aclose()


async def test_browsers_are_told_to_load_nothing_from_elsewhere_and_nothing_can_be_changed():
    async with served(small_mesh()) as url, aiohttp.ClientSession() as session:
        answer = await read(session, "GET", f"{url}/api/v1/wires")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers
        refused = await read(session, "POST", f"{url}/api/v1/wires", data=b"x")
        assert (refused.status, refused.said) == (
            405,
            {"error": "POST is not possible: nothing can be changed here"},
        )
        missing = await read(session, "GET", f"{url}/api/v1/nothing")
        assert missing.status == 404
        assert "Content-Security-Policy" in missing.headers
        assert "/api/openapi.json" in missing.said["error"]


async def test_a_page_of_another_site_cannot_read_the_view_under_its_own_name():
    async with served(small_mesh()) as url, aiohttp.ClientSession() as session:
        answer = await read(session, "GET", f"{url}/api/v1/wires", headers={"Host": "evil.example"})
        assert answer.status == 403
        assert "is not a name of this machine" in answer.said["error"]
        for name in ("localhost:7410", "127.0.0.1", "[::1]:80"):
            assert (await read(session, "GET", f"{url}/api/v1/wires", headers={"Host": name})).status == 200
        assert (await read(session, "GET", f"{url}/healthz", headers={"Host": "10.1.2.3:7410"})).status == 200


async def test_with_a_token_nobody_reads_without_it_and_a_browser_signs_in_once():
    async with served(small_mesh(), token=TOKEN) as url:
        async with ViewClient.connect(url) as view:
            with pytest.raises(Refused, match="a token is required"):
                await view.wires()
        async with ViewClient.connect(url, token="0123456789abcdeX") as view:
            with pytest.raises(Refused):
                await view.snapshot()
        async with ViewClient.connect(url, token=TOKEN) as view:
            assert len(await view.wires()) == 1
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            answer = await read(session, "GET", f"{url}/?token={TOKEN}", allow_redirects=False)
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            assert "HttpOnly" in answer.headers["Set-Cookie"]
            assert "SameSite=Strict" in answer.headers["Set-Cookie"]
            assert (await read(session, "GET", f"{url}/api/v1/wires")).status == 200
        async with aiohttp.ClientSession() as session:
            assert (await read(session, "GET", f"{url}/api/v1/wires?token={TOKEN}")).status == 401, "not in any address"
            assert (await read(session, "GET", f"{url}/healthz")).status == 200


async def test_openapi_describes_every_path_and_what_is_answered():
    async with served(small_mesh()) as url, aiohttp.ClientSession() as session:
        described = (await read(session, "GET", f"{url}/api/openapi.json")).said
        schemas = described["components"]["schemas"]
        for path, methods in described["paths"].items():
            for parameter in methods["get"].get("parameters", []):
                assert parameter["in"] in ("query", "path", "header")
            if path.endswith("/stream"):
                continue
            answer = await read(session, "GET", url + path.replace("{name}", "till-0"))
            assert answer.status == 200, path
            schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            check(answer.said, schema, schemas, path)
        routes = {each.resource.canonical for each in application(small_mesh()).router.routes() if each.resource}
        assert {each for each in routes if each.startswith("/api/v1")} == set(described["paths"])


def check(value, schema, schemas, where):
    """Hold a value against a schema, as far as the view's document uses JSON Schema."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = {"type": "null"} if value is None else schema["anyOf"][0]
        return check(value, schema, schemas, where) if value is not None else None
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    assert isinstance(value, kinds[schema["type"]]), where
    if schema["type"] == "array":
        for each in value:
            check(each, schema["items"], schemas, f"{where}[]")
    if schema["type"] == "object":
        assert set(schema.get("required", [])) <= set(value), where
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name) or schema["additionalProperties"]
            assert inner, f"{where}.{name} is not described"
            check(each, inner, schemas, f"{where}.{name}")
    if "enum" in schema:
        assert value in schema["enum"], where
    return None


def test_the_document_has_a_schema_for_all_that_it_refers_to():
    described = document()
    text = json.dumps(described)
    for name in {part.partition(chr(34))[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in described["components"]["schemas"]


async def test_upstreams_dashboard_finds_its_nodes_and_edges_and_may_read_them_from_its_page():
    state = small_mesh()
    async with served(state, dashboard_origin="http://localhost:3000") as url, aiohttp.ClientSession() as session:
        answer = await read(session, "GET", f"{url}/nodes")
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        nodes = {each["data"]["id"]: each["data"] for each in answer.said}
        edges = [each["data"] for each in (await read(session, "GET", f"{url}/edges")).said]
    key = next(each for each in nodes if each.startswith("int-c--") and each.endswith("--till")).split("--")[1]
    assert nodes["cluster-local"] == {"id": "cluster-local", "type": "cluster", "label": "cluster-local"}
    assert nodes["till"] == {"id": "till", "type": "client", "label": "till", "parent": "cluster-local"}
    assert nodes["nsmgr-1"]["type"] == "manager"
    assert nodes["forwarder-1"]["type"] == "forwarder"
    assert nodes["shop-7"]["customData"] == {"networkService": "shop"}
    assert nodes[f"int-s--{key}--shop-7"] == {
        "id": f"int-s--{key}--shop-7",
        "type": "interface",
        "label": "KERNEL/shop-1",
        "parent": "shop-7",
    }
    walk = [
        f"int-{side}--{key}--{name}"
        for side, name in (
            ("c", "till"),
            ("s", "forwarder-1"),
            ("c", "forwarder-1"),
            ("s", "forwarder-2"),
            ("c", "forwarder-2"),
            ("s", "shop-7"),
        )
    ]
    kinds = ["interfaceConnection", "interfaceCrossConnection"]
    assert edges == [
        {
            "id": f"conn--{one}--{other}",
            "type": kinds[index % 2],
            "source": one,
            "target": other,
            "healthy": True,
        }
        for index, (one, other) in enumerate(pairwise(walk))
    ]
    down = Wire(id="x", client="till", service="shop", state=WireState.DOWN, path=state.wires()[0].path)
    assert not any("healthy" in each["data"] for each in graph([down])[1])


async def test_metrics_have_counts_and_no_names_of_clients():
    state = small_mesh(wires=2)
    state.report(MANAGER, connection(1, state=Liveness.DOWN))
    with also(reader(state)):
        async with served(state) as url, aiohttp.ClientSession() as session:
            text = (await read(session, "GET", f"{url}/metrics")).said
    assert 'nsm_view_wires{state="UP",way="VXLAN"} 1.0' in text
    assert 'nsm_view_wires{state="DOWN",way="VXLAN"} 1.0' in text
    assert 'nsm_view_events_total{kind="wire-down"} 1.0' in text
    assert 'nsm_view_components{kind="manager",state="UP"} 1.0' in text
    assert "till" not in text


async def test_a_page_is_served_if_there_is_one_and_nothing_outside_its_folder(tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<title>mesh</title>")
    (folder / "app.js").write_text("1")
    (tmp_path / "secret").write_text("s")
    async with served(small_mesh(), page=folder) as url, aiohttp.ClientSession() as session:
        answer = await read(session, "GET", url)
        assert (answer.status, answer.said) == (200, "<title>mesh</title>")
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert (await read(session, "GET", f"{url}/page/app.js")).status == 200
        assert (await read(session, "GET", f"{url}/page/%2e%2e/secret")).status in (403, 404)
    async with served(small_mesh(), page=tmp_path / "none") as url, aiohttp.ClientSession() as session:
        assert (await read(session, "GET", url)).status == 404


async def test_a_view_whose_port_is_taken_fails_or_takes_the_next_one():
    async with served(small_mesh()) as url:
        taken = f"tcp://{url.removeprefix('http://')}"
        with pytest.raises(Conflict, match="Address already in use"):
            async with serving(application(small_mesh()), [taken], access=SocketAccess()):
                pass
        async with serving(application(small_mesh()), [taken], access=SocketAccess(), ports=9) as (other,):
            assert int(url.rpartition(":")[2]) < int(other.rpartition(":")[2])


async def test_a_client_says_what_is_wrong_with_the_view_it_was_given(tmp_path):
    for url, said in (
        ("ftp://x", "is not the URL of a view"),
        ("http://", "is not the URL of a view"),
        ("http://x:y", "invalid port"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            async with ViewClient.connect(url):
                pass
    async with ViewClient.connect(f"unix://{tmp_path}/none.sock") as view:
        with pytest.raises(Unavailable, match=r"none.sock cannot be reached: No such file"):
            await view.wires()
    async with ViewClient.connect("http://127.0.0.1:9", timeout=1) as view:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await anext(view.changes())


async def test_a_silent_server_is_given_up():
    done = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        writer.transport.abort()
        done.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, ViewClient.connect(f"http://127.0.0.1:{port}", timeout=0.1) as view:
        with pytest.raises(Unavailable, match=r"did not answer within 0.1 s"):
            await view.wires()
        await done.wait()


def test_times_of_a_state_are_in_utc():
    assert small_mesh().wires()[0].since.tzinfo is UTC
    assert small_mesh().wires()[0].since <= datetime.now(UTC)
