"""The components as processes of their own, without anything that was imported before: how soon, and how large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

NSM = [sys.executable, "-m", "nsm.chains"]
NAMES = ("registry", "nsmgr", "forwarder", "endpoint", "client")
_READ_AGAIN = 30.0


@dataclass(frozen=True)
class Start:
    """What one component took: seconds until it served, or until a client had its wire; memory then, in MiB."""

    name: str
    seconds: float
    memory_mib: float


def measure() -> list[Start]:
    """Start the components of one node, one after the other, each in a network namespace of its own but on one disk."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsm-bench-")))
        starts = []
        for name, command, ready, environment in _components(folder):
            process, start = _start(name, command, ready, {**_common(folder, name), **environment})
            stack.callback(_stop, process)
            starts.append(start)
    return starts


def _components(folder: Path) -> list[tuple[str, str, str, Mapping[str, str]]]:
    entries = ",".join(f"socket:{folder}/id-{name}=spiffe://bench.mesh/{name}" for name in NAMES)
    registry, manager = f"unix://{folder}/registry.sock", f"unix://{folder}/nsmgr.sock"
    to_manager = {"NSM_CONNECT_TO": manager}
    return [
        ("identity", "identity", "ready", {"NSM_ENTRIES": entries, "NSM_TRUST_DOMAIN": "bench.mesh"}),
        ("registry", "registry", "ready", {"NSM_LISTEN_ON": registry}),
        ("nsmgr", "nsmgr", "ready", {"NSM_LISTEN_ON": manager, "NSM_REGISTRY_URL": registry}),
        ("forwarder", "forwarder-kernel", "ready", {**to_manager, "NSM_LISTEN_ON": f"unix://{folder}/forwarder.sock"}),
        ("endpoint", "nse", "ready", {**to_manager, "NSM_PAYLOAD": "IP"}),
        ("client", "nsc", "wire up", {**to_manager, "NSM_NETWORK_SERVICES": "kernel://icmp-responder/nsm-1"}),
    ]


def _common(folder: Path, name: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NSM_")}
    return {**kept, "NSM_NAME": name, "SPIFFE_ENDPOINT_SOCKET": f"unix://{folder}/id-{name}", "TMPDIR": str(folder)}


def _start(
    name: str, command: str, ready: str, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Start]:
    begin = time.perf_counter()
    process = subprocess.Popen(["unshare", "--net", *NSM, command], env=dict(environment), stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"{") and json.loads(line)["event"] == ready:
            seconds = time.perf_counter() - begin
            return process, Start(name, seconds, resident_mib(process.pid))
    raise RuntimeError(f"{name} ended with {process.wait()} before it was ready")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.communicate(timeout=_READ_AGAIN)


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process, now or at its peak (`VmHWM`)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0
