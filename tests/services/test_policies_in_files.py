"""Policies in files where components go by them: who asks, who answers, who registers; by real sockets and processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from nsm.apis import connection as messages
from nsm.apis.connection import Connection, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.composed import RegistrySettings, client, endpoint, memory_registry, services_client
from nsm.chains.core import Begin, Call, Refused, RegistryCall, merge_with_returned
from nsm.chains.identity import Authority
from nsm.chains.policy import (
    CLIENT_MASKS,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    IdPatterns,
    Trust,
)
from nsm.chains.registry.memory import Records
from nsm.chains.registry.stored import RecordedNames
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve
from tests.chains.policy import regos

AUTHORITY = Authority.create("test.mesh")
NSM = [sys.executable, "-m", "nsm.chains"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """That of NSM's policies, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc/nsm/opa").mkdir(parents=True)
    return tmp_path / "etc/nsm/opa"


def put(folder, name, text):
    path = folder / f"{name}.rego"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@asynccontextmanager
async def wire(tmp_path, *, masks=SERVER_MASKS, answers=CLIENT_MASKS):
    """A client that asks an endpoint."""
    server = endpoint("nse", identity_of(AUTHORITY, "nse"), [], policies=masks)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(Pool(identity_of(AUTHORITY, "client"), dial_timeout=2))
        await stack.enter_async_context(server)
        url = f"unix://{tmp_path}/nse.sock"
        await stack.enter_async_context(serve([url], server.methods(), identity_of(AUTHORITY, "nse"), name="nse"))
        begin = Begin(merge=merge_with_returned)
        asking = client("client", [], RemoteNetworkService(pool), url=url, begin=begin, policies=answers)
        yield asking, server


def ask(connection_id="c"):
    return Call(NetworkServiceRequest(connection=Connection(id=connection_id, network_service="icmp")))


async def test_a_file_that_replaces_a_native_policy_decides_and_says_so(folder, tmp_path):
    path = put(folder, "common/tokens_expired", regos.NOBODY)
    async with wire(tmp_path) as (asking, server):
        with pytest.raises(Refused) as refused:
            await asking.request(ask())
        assert str(refused.value).endswith(
            f"no sufficient privileges: tokens_expired ({path}): its rule `valid` is false; "
            "spiffe://test.mesh/client asked; see NSM_SERVER_POLICIES (authorize)"
        )
        assert len(server.begin) == 0
        path.write_text(regos.TOKENS_EXPIRED)
        connection = await asking.request(ask())
        path.write_text(regos.NOBODY)
        await asking.close(ask())  # a Close is not refused for expired tokens
        assert connection.id == "c"
        assert len(server.begin) == 0


async def test_a_native_refusal_names_policy_identity_and_variable_too(tmp_path):
    async with wire(tmp_path) as (asking, _):
        with pytest.raises(Refused) as refused:
            await asking.request(behind_somebody(ask()))
    told = str(refused.value)
    assert "tokens_" in told
    assert "; spiffe://test.mesh/client asked; see NSM_SERVER_POLICIES" in told
    assert "eyJ" not in told


def behind_somebody(call):
    """Who had no token."""
    call.connection.path = messages.Path(index=0, path_segments=[PathSegment(name="before", id="c", token="eyJ.none")])
    return call


async def test_an_answer_that_a_file_refuses_is_taken_back(tmp_path):
    path = put(tmp_path, "mine", regos.NOBODY)
    async with wire(tmp_path, answers=[*CLIENT_MASKS, str(path)]) as (asking, server):
        with pytest.raises(Refused, match="; spiffe://test.mesh/nse answered; see NSM_CLIENT_POLICIES"):
            await asking.request(ask())
        assert len(server.begin) == 0


async def test_policies_of_upstream_s_kind_in_files_alone_let_a_wire_through(tmp_path):
    names = ("TOKENS_VALID", "TOKENS_EXPIRED", "TOKENS_CHAINED", "PREV_TOKEN_SIGNED", "NEXT_TOKEN_SIGNED")
    files = {name: str(put(tmp_path, name.lower(), getattr(regos, name))) for name in names}
    common = [files[name] for name in names[:3]]
    own, theirs = [*common, files["PREV_TOKEN_SIGNED"]], [*common, files["NEXT_TOKEN_SIGNED"]]
    async with wire(tmp_path, masks=own, answers=theirs) as (asking, server):
        for _ in range(2):
            await asking.request(ask())
        assert len(server.begin) == 1
        await asking.close(ask())


# --- registrations


@asynccontextmanager
async def registry_of(tmp_path, masks, answers=REGISTRY_CLIENT_MASKS):
    registry = memory_registry(identity_of(AUTHORITY, "registry"), RegistrySettings(policies=masks))
    url = f"unix://{tmp_path}/registry.sock"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(registry.aclose)
        identity = identity_of(AUTHORITY, "registry")
        await stack.enter_async_context(serve([url], registry.methods(), identity, name="registry"))

        async def client_of(name):
            pool = await stack.enter_async_context(Pool(identity_of(AUTHORITY, name), dial_timeout=2))
            chain = services_client(url, pool, policies=answers)
            stack.push_async_callback(chain.aclose)
            return chain

        yield client_of


def service(name):
    return RegistryCall(NetworkService(name=name, payload="IP"))


async def test_a_file_may_decide_who_registers_a_name(folder, tmp_path):
    path = put(folder, "registry/client_allowed", regos.CLIENT_ALLOWED)
    async with registry_of(tmp_path, REGISTRY_SERVER_MASKS) as client_of:
        one, other = await client_of("one"), await client_of("other")
        await one.register(service("a"))
        await one.register(service("a"))
        for refused in (other.register, other.unregister):
            with pytest.raises(Refused) as error:
                await refused(service("a"))
            assert f"client_allowed ({path}): its rule `valid` is false; spiffe://test.mesh/other" in str(error.value)
            assert "see NSM_REGISTRY_SERVER_POLICIES" in str(error.value)
        await one.unregister(service("a"))
        await other.register(service("a"))


async def test_a_file_may_judge_the_registry_s_answers(tmp_path):
    own = put(tmp_path, "client_allowed", regos.CLIENT_ALLOWED)
    async with registry_of(tmp_path, REGISTRY_SERVER_MASKS, [*REGISTRY_CLIENT_MASKS, str(own)]) as client_of:
        one = await client_of("one")
        for name in ("a", "b", "a"):
            await one.register(service(name))
        own.write_text(regos.NOBODY)
        with pytest.raises(Refused, match="spiffe://test.mesh/registry answered; see NSM_REGISTRY_CLIENT_POLICIES"):
            await one.register(service("a"))


ONE_EACH = """package nsm

default valid = false

own := [name | input.resource_path_ids_map[name][0] == input.resource_id; name != input.resource_name]

valid { count(own) < 1 }
"""


async def test_a_policy_may_look_at_all_names_that_are_taken(tmp_path):
    path = put(tmp_path, "one_each", ONE_EACH)
    async with registry_of(tmp_path, [*REGISTRY_SERVER_MASKS, str(path)]) as client_of:
        one, other = await client_of("one"), await client_of("other")
        await one.register(service("a"))
        await one.register(service("a"))
        await other.register(service("b"))
        with pytest.raises(Refused, match="one_each"):
            await one.register(service("c"))
        await one.unregister(service("a"))
        await one.register(service("c"))


def test_names_in_custom_resources_are_those_of_their_records():
    records, manager = Records(), "spiffe://a/nsmgr"
    records.put(NetworkServiceEndpoint(name="one", path_ids=["spiffe://a/one", manager, "spiffe://a/registry"]))
    records.put(NetworkServiceEndpoint(name="by hand"))
    names = RecordedNames(records, NetworkServiceEndpoint(), Trust(intermediaries=IdPatterns([manager])))
    assert names(None) == names("one") == {"one": ["spiffe://a/one", manager, "spiffe://a/registry"]}
    assert names("two") == {}
    assert RecordedNames(records, NetworkServiceEndpoint(), Trust())("one")["one"][0] == manager


# --- the commands


def run(*arguments, cwd="/", **environment):
    clean = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        [*NSM, *arguments], env=clean, cwd=cwd, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    ("component", "variable"),
    [
        ("nsmgr", "NSM_SERVER_POLICIES"),
        ("nsmgr", "NSM_REGISTRY_SERVER_POLICIES"),
        ("registry", "NSM_REGISTRY_SERVER_POLICIES"),
        ("forwarder-kernel", "NSM_CLIENT_POLICIES"),
        ("nse", "NSM_SERVER_POLICIES"),
        ("nsc", "NSM_CLIENT_POLICIES"),
    ],
)
def test_a_broken_file_stops_the_start_with_file_line_and_code_2(component, variable, tmp_path):
    path = put(tmp_path, "mine", "package nsm\n\n\nvalid { ]\n")
    done = run(component, **{variable: f"{tmp_path}/.*.rego"})
    assert done.returncode == 2
    assert f"{variable}='{tmp_path}/.*.rego': {path}:4: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_fifo_among_the_policies_stops_the_start_and_not_for_ever(tmp_path):
    (tmp_path / "etc/nsm/opa/common").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/nsm/opa/common/tokens_valid.rego")
    done = run("registry", cwd=tmp_path)
    assert done.returncode == 2
    assert "tokens_valid.rego is not a regular file" in done.stderr


def test_the_processes_that_evaluate_end_with_the_component(tmp_path):
    put(tmp_path, "mine", regos.EVERYBODY)
    with running("registry", NSM_REGISTRY_SERVER_POLICIES=f"{tmp_path}/mine.rego") as registry:
        until = time.monotonic() + 15
        while not (workers := children_of(registry.pid)):
            assert time.monotonic() < until
    assert len(workers) == 1, "the second one starts when it is needed"
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in workers):
        assert time.monotonic() < until


def children_of(pid):
    """Those that have come as far as to read a policy."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(path.parent.name)
    return [pid for pid in found if b"rego/worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def running(*arguments, cwd="/", **environment):
    clean = {"PATH": os.environ["PATH"], **environment}
    process = subprocess.Popen([*NSM, *arguments], env=clean, cwd=cwd, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def line_with(process, words, seconds=15):
    """The line of a log that has `words`, whole."""
    until = time.monotonic() + seconds
    for line in process.stderr:
        if words in line:
            return json.loads(line)
        assert time.monotonic() < until
    raise AssertionError(f"{process.args} ended without {words!r}")


@contextmanager
def manager_and_identity(tmp_path, **environment):
    sockets = {who: f"{tmp_path}/{who}.sock" for who in ("manager", "client")}
    entries = ",".join(f"socket:{path}=spiffe://test.mesh/{who}" for who, path in sockets.items())
    of_identity = {"NSM_ENTRIES": entries, "NSM_TRUST_DOMAIN": "test.mesh", "NSM_AUTHORITY_FILE": f"{tmp_path}/ca.pem"}
    of_manager = {
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{sockets['manager']}",
        "NSM_LISTEN_ON": f"unix://{tmp_path}/nsm.io.sock",
        "NSM_REGISTRY_URL": "",
        **environment,
    }
    of_client = {
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{sockets['client']}",
        "NSM_CONNECT_TO": f"unix://{tmp_path}/nsm.io.sock",
        "NSM_NETWORK_SERVICES": "kernel://opa/nsm-1",
        "NSM_LOCAL_DNS_SERVER_ENABLED": "false",
    }
    with running("identity", **of_identity) as identity:
        line_with(identity, '"ready"')
        with running("nsmgr", cwd=tmp_path, **of_manager) as manager:
            line_with(manager, '"ready"')
            yield of_client


def test_upstream_s_example_opa_a_client_whose_tokens_have_expired_gets_no_wire(tmp_path):
    """features/opa: NSM_MAX_TOKEN_LIFETIME=-1m for the client, and its log has the refusal."""
    with manager_and_identity(tmp_path) as client:
        with running("nsc", NSM_MAX_TOKEN_LIFETIME="-1m", **client) as nsc:
            line = line_with(nsc, "no sufficient privileges")["error"]
    assert "tokens_expired: the token of segment 0 has expired" in line
    assert "; spiffe://test.mesh/client asked; see NSM_SERVER_POLICIES" in line
    assert "eyJ" not in line


def test_a_mounted_tokens_expired_takes_the_place_of_the_native_one(tmp_path):
    """One that refuses everybody refuses who has good tokens; one that checks nothing lets expired ones pass."""
    folder = tmp_path / "etc/nsm/opa/common"
    folder.mkdir(parents=True)
    (folder / "tokens_expired.rego").write_text(regos.NOBODY)
    with manager_and_identity(tmp_path) as client:
        with running("nsc", **client) as nsc:
            assert "tokens_expired (" in line_with(nsc, "no sufficient privileges")["error"]
        (folder / "tokens_expired.rego").write_text(regos.EVERYBODY)
        with running("nsc", NSM_MAX_TOKEN_LIFETIME="-1m", **client) as nsc:
            error = line_with(nsc, '"error"')["error"]
            assert "tokens_expired" not in error
