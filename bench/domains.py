"""Wires between domains: how soon they are there, and how long it takes to find a service of another domain."""

from __future__ import annotations

import asyncio
import time

from bench.running import load, mesh
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, RegistryCall
from nsm.chains.identity.source import identity_from
from nsm.chains.transport import Pool, RemoteRegistry
from nsm.mesh.plan import OPERATOR, manager_of
from nsm.mesh.rundir import RunDir

_TOPOLOGY = """
domains:
  - {name: my.one, nodes: [node-1]}
  - {name: my.two, nodes: [node-2]}
  - {name: my.sky, nodes: [node-3], floating: true}
nodes: [{name: node-1}, {name: node-2}, {name: node-3}]
links: [{nodes: [node-1, node-2, node-3], network: 172.16.1.0/24}]
endpoints:
  - {name: endpoint, node: node-2, services: [frames], payload: ETHERNET, prefixes: [10.0.0.0/16]}
  - {name: floating, node: node-2, services: [frames@my.sky], payload: ETHERNET, prefixes: [10.1.0.0/16]}
clients:
  - {name: client, node: node-1, wires: ["kernel://frames@my.two/nsm-1"]}
"""
_WARM, _WIRES, _FINDS = "5", "200", 300


def measure() -> list[tuple[str, list[float], str]]:
    """Set-up over eight segments, to an endpoint of another domain and to one registered in a third; Find."""
    figures: list[tuple[str, list[float], str]] = []
    with mesh("bench-domains", _TOPOLOGY) as run:
        for name, service in (("interdomain_setup", "frames@my.two"), ("floating_setup", "frames@my.sky")):
            load(run, "-n", _WARM, "--cycle", service=service)
            figures.append((name, load(run, "-n", _WIRES, "--cycle", "--first-packet", service=service)["setup"], "ms"))
        figures.append(("find_interdomain", asyncio.run(_finds(run, "frames@my.two")), "ms"))
    return figures


async def _finds(run: RunDir, service: str) -> list[float]:
    """Milliseconds of each Find of the endpoints of a service, through the manager."""
    workload_api, times = f"unix://{run.identity_of(OPERATOR)}", []
    query = NetworkServiceEndpoint(network_service_names=[service])
    async with identity_from(workload_api, token_lifetime=600) as identity, Pool(identity) as pool:
        registry = RemoteRegistry(ENDPOINTS, pool)
        for _ in range(_FINDS):
            begin = time.perf_counter()
            found = [
                each
                async for batch in registry.find(RegistryCall(query, target=manager_of(run, "node-1")))
                for each in batch
            ]
            times.append(1000 * (time.perf_counter() - begin))
            if len(found) != 1:
                raise RuntimeError(f"found {found}")
    return times[10:]


if __name__ == "__main__":
    import statistics

    for figure, values, unit in measure():
        print(f"{figure:<24}{statistics.median(values):>10.2f} {unit}")
