"""A registry with ten thousand endpoints: a process of its own, clients over TCP, policies on.

    python -m bench.registry [STORE [KUBECONFIG]]

measures this alone, on a store as `NSM_STORE` names it; `k8s:` needs a kubeconfig, and `k8s/crds` applied there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.start import resident_mib
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import RegistrySettings
from nsm.chains.core import ENDPOINTS, MeshError, RegistryCall
from nsm.chains.identity import Authority, Identity
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteRegistry, serve
from nsm.services.registry.opened import open_registry
from nsm.services.registry.store_url import store_url
from tests.services.registry.etcd_cluster import EtcdCluster

ENDPOINT_COUNT, SERVICES_COUNT, LAST = 10_000, 111, 1_000
"""111 services share 10,000 endpoints: 90 each."""
FINDS = 200
CLIENTS, WATCHERS, CHANGES, _PROCESSES = 8, 100, 20, 4
"""The watchers are in some processes: one would need longer to read all records than a registry waits."""
_URL = "tcp://127.0.0.1:5001"
_PLACES = [f"tcp://127.0.0.1:{6000 + number}" for number in range(CHANGES)]
"""Where one endpoint is registered, one after the other."""
LIFETIME = 3600.0


async def measure(store: str = "memory:", kubeconfig: str = "") -> list[tuple[str, list[float], str]]:
    """Register, then Find by name and by service; refuses a forged token in the same run.

    The records stay where they are stored.
    """
    authority = Authority.create("bench.mesh")
    identities = [identity_of(authority, f"client-{number}") for number in range(CLIENTS)]
    async with _registry(authority, store, kubeconfig) as (url, pid), _pools(identities) as pools:
        rate = await _register(pools, url)
        await _forged_token_is_refused(authority, url)
        by_name = await _find(pools[0], url, lambda number: NetworkServiceEndpoint(name=f"endpoint-{number * 7}"), 1)
        by_service = await _find(
            pools[0],
            url,
            lambda number: NetworkServiceEndpoint(network_service_names=[f"service-{number % SERVICES_COUNT}"]),
            ENDPOINT_COUNT // SERVICES_COUNT,
        )
        watched, memory = await _watch(authority, pools[0], url, pid)
    return [
        ("register_10k_per_s", [rate], "/s"),
        ("find_10k", by_name, "ms"),
        ("find_10k_service", by_service, "ms"),
        ("watch_100_ms", watched, "ms"),
        ("watch_100_mib", [memory], "MiB"),
    ]


async def rates() -> list[tuple[str, list[float], str]]:
    """How many registrations a second the durable stores take, each with new files: the last of ten thousand."""
    authority = Authority.create("bench.mesh")
    identities = [identity_of(authority, f"client-{number}") for number in range(CLIENTS)]
    figures = []
    with tempfile.TemporaryDirectory(prefix="nsm-bench-") as folder, EtcdCluster(Path(folder)) as etcd:
        for name, store in (("sqlite", f"sqlite://{folder}/records"), ("etcd", etcd.url)):
            async with _registry(authority, store, "") as (url, _), _pools(identities) as pools:
                figures.append((f"{name}_register_per_s", [await _register(pools, url)], "/s"))
    return figures


@asynccontextmanager
async def _registry(authority: Authority, store: str, kubeconfig: str) -> AsyncIterator[tuple[str, int]]:
    """The URL and the process of a registry."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(authority, theirs, store, kubeconfig), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield await asyncio.to_thread(ours.recv), process.pid
    finally:
        process.kill()
        process.join()


def _serve(authority: Authority, pipe: Any, store: str, kubeconfig: str) -> None:
    async def main() -> None:
        identity = identity_of(authority, "registry")
        opened = open_registry(identity, RegistrySettings(lifetime=LIFETIME), store_url(store), kubeconfig=kubeconfig)
        async with (
            opened as registry,
            serve(["tcp://127.0.0.1:0"], registry.methods(), identity, name="registry") as urls,
        ):
            pipe.send(urls[0])
            await asyncio.get_running_loop().create_future()

    asyncio.new_event_loop().run_until_complete(main())


@asynccontextmanager
async def _pools(identities: list[Identity]) -> AsyncIterator[list[Pool]]:
    pools = [Pool(identity) for identity in identities]
    try:
        yield pools
    finally:
        for pool in pools:
            await pool.__aexit__(None, None, None)


async def _register(pools: list[Pool], url: str) -> float:
    """The rate over the last thousand."""
    numbers, times = iter(range(ENDPOINT_COUNT)), []

    async def client(pool: Pool) -> None:
        remote = RemoteRegistry(ENDPOINTS, pool)
        for number in numbers:
            record = NetworkServiceEndpoint(
                name=f"endpoint-{number}",
                network_service_names=[f"service-{number % SERVICES_COUNT}"],
                url=_URL,
            )
            await remote.register(RegistryCall(record, target=url))
            times.append(time.perf_counter())

    await asyncio.gather(*map(client, pools))
    return LAST / (times[-1] - times[-1 - LAST])


async def _find(pool: Pool, url: str, query: Any, hits: int) -> list[float]:
    remote, taken = RemoteRegistry(ENDPOINTS, pool), []
    for number in range(FINDS):
        begin = time.perf_counter()
        found = [one async for batch in remote.find(RegistryCall(query(number), target=url)) for one in batch]
        taken.append((time.perf_counter() - begin) * 1000)
        if abs(len(found) - hits) > 1:
            raise RuntimeError(f"found {len(found)} instead of {hits}")
    return taken


async def _watch(authority: Authority, pool: Pool, url: str, pid: int) -> tuple[list[float], float]:
    """Ms until the last of a hundred who watch all endpoints has seen a change; MiB that they cost the registry."""
    remote, taken, before = RemoteRegistry(ENDPOINTS, pool), list[float](), resident_mib(pid)
    with ExitStack() as stack:
        crowds = [stack.enter_context(_watching(authority, number, url)) for number in range(min(_PROCESSES, WATCHERS))]

        async def seen() -> float:
            """When the last watcher has seen what it waits for (`time.perf_counter`)."""
            times: list[float] = [await asyncio.to_thread(crowd.recv) for crowd in crowds]
            return max(times)

        await seen()
        memory = resident_mib(pid) - before
        for place in _PLACES:
            begin = time.perf_counter()
            record = NetworkServiceEndpoint(name="endpoint-0", network_service_names=["service-0"], url=place)
            await remote.register(RegistryCall(record, target=url))
            taken.append((await seen() - begin) * 1000)
    return taken, memory


@contextmanager
def _watching(authority: Authority, number: int, url: str) -> Iterator[Any]:
    """A process with some of the watchers; a pipe that tells when all of them have seen everything, and each change."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch_for, args=(authority, number, url, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _watch_for(authority: Authority, number: int, url: str, pipe: Any) -> None:
    names = [f"watcher-{watcher}" for watcher in range(number, WATCHERS, min(_PROCESSES, WATCHERS))]
    missing = {_URL: len(names) * ENDPOINT_COUNT, **dict.fromkeys(_PLACES, len(names))}

    async def watcher(pool: Pool) -> None:
        query: RegistryCall[NetworkServiceEndpoint] = RegistryCall(NetworkServiceEndpoint(), watch=True, target=url)
        async for batch in RemoteRegistry(ENDPOINTS, pool).find(query):
            for found in batch:
                missing[found.record.url] -= 1
                if not missing[found.record.url]:
                    pipe.send(time.perf_counter())

    async def main() -> None:
        async with _pools([identity_of(authority, name) for name in names]) as pools:
            for each in pools:
                await each.channel(url).peer()
            await asyncio.gather(*map(watcher, pools))  # a watch has no end, unless it fails

    asyncio.new_event_loop().run_until_complete(main())


async def _forged_token_is_refused(authority: Authority, url: str) -> None:
    """No figure is bought with a check left out."""
    honest, forger = identity_of(authority, "honest"), identity_of(authority, "honest")
    honest.token = lambda peer: forger.token(replace(peer, seen=None))  # type: ignore[assignment,misc]
    async with Pool(honest) as pool:
        try:
            record = NetworkServiceEndpoint(name="forged", url="tcp://127.0.0.1:1")
            await RemoteRegistry(ENDPOINTS, pool).register(RegistryCall(record, target=url))
        except MeshError as error:
            if "prev_token_signed" in str(error):
                return
            raise
    raise RuntimeError("a forged token was taken")


if __name__ == "__main__":
    for name, values, unit in asyncio.run(measure(*sys.argv[1:])):
        print(f"{name:20} {statistics.median(values):8.1f} {unit}")
