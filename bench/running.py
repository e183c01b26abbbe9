"""A local mesh to measure, and programs that run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nsm.mesh.control import ask
from nsm.mesh.enter import down
from nsm.mesh.launch import up
from nsm.mesh.plan import OPERATOR
from nsm.mesh.rundir import RunDir
from nsm.mesh.topology import parse

NSM = [sys.executable, "-m", "nsm.chains"]


@contextmanager
def mesh(name: str, topology: str) -> Iterator[RunDir]:
    """A mesh for measuring; it has a workload `client` on the node `node-1`, and one `endpoint`."""
    run = RunDir.of(name)

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] in {"no wire yet", "ended"}:
            print(event, file=sys.stderr)

    up(run, parse(topology, "the benchmark's topology"), tell)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield run
    finally:
        down(run)


def load(run: RunDir, *arguments: str, service: str = "icmp-responder") -> dict[str, Any]:
    """What `nsm bench connect` measures from the client's namespace. Errors end the benchmark."""
    manager = f"unix://{run.socket_of('nsmgr-node-1')}"
    command = [*NSM, "bench", "connect", "--url", manager, "--service", service, "--json", *arguments]
    environment = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{run.identity_of(OPERATOR)}"}
    inside = [*NSM, "mesh", "exec", "--name", run.name, "client", "--", *command]
    done = subprocess.run(inside, env=environment, capture_output=True, text=True, timeout=180, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"] or result["lost_first_packets"]:
        raise RuntimeError(f"{result['errors'][:3]}, first packets lost: {result['lost_first_packets']}")
    return result


def in_workload(run: RunDir, workload: str, *command: str) -> str:
    """What a command in a workload prints."""
    words = [*NSM, "mesh", "exec", "--name", run.name, workload, "--", *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def pids(run: RunDir) -> dict[str, int]:
    """The pid of each component, by its name."""
    return {component["name"]: component["pid"] for component in ask(run, {"command": "status"})["components"]}
