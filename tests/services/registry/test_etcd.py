"""A registry in a real etcd: replicas, members that die or hang, credentials."""

import asyncio
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from nsm.apis.registry import NetworkService
from nsm.chains.composed import RegistrySettings
from nsm.chains.core import InvalidRequest, MeshError, Refused, Unavailable
from nsm.services.registry.etcd import backend, etcd_registry
from nsm.services.registry.store_url import store_url
from tests.cluster import identities
from tests.services.registry.calls import ANY, OTHER, OWN, asks, find, names, nse
from tests.services.registry.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(backend, "_LOOK", 0.2)


def at(url, **settings):
    return etcd_registry(OWN, RegistrySettings(**settings), store_url(url))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
def url(shared, tmp_path):
    return f"{shared.url}/{tmp_path.name}"


@pytest.fixture
def own(tmp_path):
    """A cluster of one that a test may kill."""
    with EtcdCluster(tmp_path) as etcd:
        yield etcd


@asynccontextmanager
async def replicas(url, **settings):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(at(url, **settings)) for _ in range(2)]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def registered(registry, record, seconds=20.0):
    """Register as an endpoint does: again and again until it works."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await registry.endpoints.register(asks(record))
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_what_one_replica_is_told_the_other_finds_and_refuses_to_others(url):
    async with replicas(url) as (one, two):
        watch = two.endpoints.find(asks(nse("", "svc"), watch=True))
        assert await anext(watch) == []
        record = await one.endpoints.register(asks(nse("nse", url="tcp://h:1")))
        (found,) = await anext(watch)
        assert found.record == record
        with pytest.raises(Refused, match="'nse' was registered by spiffe://test.mesh/one"):
            await two.endpoints.register(asks(nse("nse"), OTHER))
        await two.endpoints.unregister(asks(nse("nse")))
        (found,) = await anext(watch)
        assert found.deleted
        await watch.aclose()

        async def is_gone():
            return await names(one.endpoints, ANY) == []

        await until(is_gone)


async def test_replicas_that_write_one_name_at_once_agree(url):
    async with replicas(url) as both:
        calls = [asks(nse("nse", url=f"tcp://h:{number}")) for number in range(20)]
        await asyncio.gather(*(both[n % 2].endpoints.register(call) for n, call in enumerate(calls)))

        async def agree():
            """Either replica may have written last, and the other one sees that a moment later."""
            (one,), (other,) = [await find(each.endpoints, ANY) for each in both]
            return one.url == other.url

        await until(agree)
        async with at(url) as third:  # what it reads is what etcd has
            (kept,) = await find(third.endpoints, ANY)
        assert [(await find(each.endpoints, ANY))[0].url for each in both] == [kept.url, kept.url]


async def test_an_endpoint_that_does_not_come_again_is_removed_by_one_of_the_replicas(url, shared, tmp_path):
    async with replicas(url, lifetime=1.0):
        async with at(url, lifetime=1.0) as registry:
            await registry.endpoints.register(asks(nse("goes")))

        async def is_removed():
            return not await asyncio.to_thread(shared.control, "get", "--prefix", f"/{tmp_path.name}/", "--keys-only")

        await until(is_removed)


async def test_where_no_registry_runs_any_more_a_lease_removes_what_is_left(url, shared, tmp_path):
    async with at(url) as registry:
        await registry.endpoints.register(asks(nse()))
        await registry.services.register(asks(NetworkService(name="svc")))
    told = shared.control("get", "--prefix", f"/{tmp_path.name}/", "--write-out=fields")
    leases = [int(line.split(":")[1]) for line in told.splitlines() if '"Lease"' in line]
    assert len(leases) == 2
    for lease in leases:
        left = shared.control("lease", "timetolive", f"{lease:x}")
        assert 86_000 <= int(left.split("remaining(")[1].split("s")[0]) <= 2 * 86_400


async def test_all_records_are_there_after_a_restart_of_the_registry_and_of_etcd(own):
    async with at(own.url) as registry:
        for number in range(600):  # more than a page
            await registry.endpoints.register(asks(nse(f"nse-{number}")))
    own.kill(0)
    own.start(0)
    async with at(own.url) as registry:
        assert len(await names(registry.endpoints, ANY)) == 600
        with pytest.raises(Refused):
            await registry.endpoints.register(asks(nse("nse-1"), OTHER))


async def test_etcd_that_is_killed_refuses_what_is_new_and_ends_nothing(own):
    async with at(own.url, lifetime=2.0) as registry:
        await registry.endpoints.register(asks(nse("there")))
        own.kill(0)
        with pytest.raises(Unavailable, match=r"etcd at 127\.0\.0\.1:\d+ cannot be reached"):
            await registry.endpoints.register(asks(nse("new")))
        await asyncio.sleep(2.5)
        assert await names(registry.endpoints, ANY) == ["there"]
        own.start(0)
        await registered(registry, nse("new"))
        assert "new" in await names(registry.endpoints, ANY)

        async def has_ended():
            return await names(registry.endpoints, nse("there")) == []

        await until(has_ended)


async def test_etcd_that_hangs_refuses_in_the_callers_time_and_ends_nothing(own):
    async with at(own.url, lifetime=2.0) as registry:
        await registry.endpoints.register(asks(nse("there")))
        own.stop(0)
        try:
            begin = time.monotonic()
            with pytest.raises(MeshError, match="within the caller's deadline|cannot be reached"):
                deadline = asyncio.get_running_loop().time() + 1.5
                await registry.endpoints.register(asks(nse("new"), deadline=deadline))
            assert time.monotonic() - begin < 2.5
            await asyncio.sleep(2.5)
            assert await names(registry.endpoints, ANY) == ["there"]
        finally:
            own.go_on(0)
        await registered(registry, nse("new"))


async def test_a_cluster_of_three_goes_on_without_one_member_and_says_so_without_two(tmp_path):
    with EtcdCluster(tmp_path, members=3) as three:
        async with at(three.url) as registry:
            await registry.endpoints.register(asks(nse("before")))
            three.kill(0)  # the one that we are connected to
            await registered(registry, nse("without-one"))
            assert set(await names(registry.endpoints, ANY)) == {"before", "without-one"}
            three.kill(1)
            with pytest.raises(MeshError, match="failed|cannot be reached|within the caller's deadline"):
                deadline = asyncio.get_running_loop().time() + 5
                await registry.endpoints.register(asks(nse("without-quorum"), deadline=deadline))
            assert set(await names(registry.endpoints, ANY)) == {"before", "without-one"}
            three.start(0)
            await registered(registry, nse("again"), seconds=40)
            assert {"before", "without-one", "again"} <= set(await names(registry.endpoints, ANY))


async def test_a_watch_whose_revision_was_compacted_begins_with_a_list(url, shared):
    async with replicas(url) as (one, two):
        await one.endpoints.register(asks(nse("stays")))
        await one.endpoints.register(asks(nse("goes")))

        async def has_both():
            return len(await names(two.endpoints, ANY)) == 2

        await until(has_both)
        store = two.endpoints.elements[-1]._backend
        await store._tasks.aclose()  # it hears nothing for a while
        await one.endpoints.unregister(asks(nse("goes")))
        await one.endpoints.register(asks(nse("new")))
        status = shared.control("endpoint", "status", "--write-out=fields")
        (revision,) = (line.split(":")[1].strip() for line in status.splitlines() if '"Revision"' in line)
        shared.control("compact", revision)
        await store.__aenter__()

        async def is_current():
            return sorted(await names(two.endpoints, ANY)) == ["new", "stays"]

        await until(is_current)


async def test_a_value_that_is_no_record_is_ignored(url, shared, tmp_path):
    async with at(url) as registry:
        await registry.endpoints.register(asks(nse("sound")))
        shared.control("put", f"/{tmp_path.name}/NetworkServiceEndpoint/spoilt", "nonsense")
        shared.control("put", f"/{tmp_path.name}/NetworkServiceEndpoint/sound", "nonsense")
        await registry.endpoints.register(asks(nse("after")))
        assert sorted(await names(registry.endpoints, ANY)) == ["after", "sound"]
    async with at(url) as registry:
        assert await names(registry.endpoints, ANY) == ["after"]
        await registry.endpoints.register(asks(nse("spoilt")))
        assert sorted(await names(registry.endpoints, ANY)) == ["after", "spoilt"]


async def test_a_user_needs_the_right_password_and_a_role_and_a_new_session_after_a_restart(own, tmp_path):
    for words in (
        ("user", "add", "root:root"),
        ("user", "grant-role", "root", "root"),
        ("user", "add", "nsm:right"),
        ("role", "add", "registry"),
        ("role", "grant-permission", "registry", "readwrite", "--prefix=true", "/nsm/registry/"),
        ("user", "add", "nobody:right"),
        ("auth", "enable"),
    ):
        own.control(*words)
    own.control("--user=root:root", "user", "grant-role", "nsm", "registry")
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("right\n")
    wrong.write_text("wrong")
    async with at(f"{own.url}?user=nsm&password-file={right}") as registry:
        await registry.endpoints.register(asks(nse("one")))
        own.kill(0)
        own.start(0)
        await registered(registry, nse("two"))
        assert set(await names(registry.endpoints, ANY)) >= {"one", "two"}
    for user, password, said in (
        ("nsm", wrong, "rejects our user and password"),
        ("nobody", right, "denies access to the user 'nobody'.*grant a role with readwrite on /nsm/registry/"),
    ):
        client = backend.Etcd(store_url(f"{own.url}?user={user}&password-file={password}"))
        async with client:
            with pytest.raises(MeshError, match=said):
                await client.range(backend.RangeRequest(key=b"/nsm/registry/x"))
    async with backend.Etcd(store_url(f"{own.url}?user=nsm&password-file={right}")) as client:
        for _ in range(2):  # with a new session, and with one that stays
            with pytest.raises(InvalidRequest, match="rejects the request: .*key is not provided"):
                await client.range(backend.RangeRequest())
    with pytest.raises(MeshError, match=r"rejects our user and password: .*user name is empty"):
        async with backend.Etcd(store_url(own.url)) as client:
            await client.range(backend.RangeRequest(key=b"/nsm/registry/x"))


async def test_tls_with_an_authority_of_ones_own(tmp_path):
    who = identities.make(tmp_path / "who", ["127.0.0.1"])
    pair = [f"--cert-file={who.file('server.crt')}", f"--key-file={who.file('server.key')}"]
    with TlsCluster(tmp_path, more=pair) as etcd:
        async with at(f"{etcd.url}?ca={who.file('ca.crt')}") as registry:
            await registry.endpoints.register(asks(nse("over-tls")))
            assert await names(registry.endpoints, ANY) == ["over-tls"]
        for parameters in ("", f"?ca={who.file('ca.crt')}.other"):
            other = identities.make(tmp_path / "other", ["127.0.0.1"])
            authority = parameters.replace(f"{who.file('ca.crt')}.other", str(other.file("ca.crt")))
            client = backend.Etcd(store_url(etcd.url + authority))
            async with client:
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await client.range(backend.RangeRequest(key=b"x"))
    with pytest.raises(MeshError, match="NSM_STORE: cannot read /none"):
        async with at(f"{etcd.url}?ca=/none"):
            pass


class TlsCluster(EtcdCluster):
    """Its clients speak TLS."""

    scheme = "https"

    def _answers(self, port):
        probe = ["curl", "-sk", "--max-time", "1", f"https://127.0.0.1:{port}/health"]
        return b"true" in subprocess.run(probe, capture_output=True, check=False).stdout
