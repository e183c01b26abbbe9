"""A host that has joined a domain, `nsm node`: the memory of its one process with ten wires."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.start import NSM, resident_mib

WIRES = 10
_PATIENCE = 30.0


def measure() -> float:
    """MiB resident in the node's process while a client has ten wires to an endpoint on the same host."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsm-bench-")))
        join, registry, manager, proxy = (f"127.0.0.1:{port}" for port in _free_ports(4))
        own = {"NSM_CONNECT_TO": f"unix://{folder}/nsmgr", "SPIFFE_ENDPOINT_SOCKET": f"unix://{folder}/identity"}
        trusted = {"NSM_INTERMEDIARIES": "/node/*", "NSM_REGISTRATION_POLICY": "forwarder=/node/*"}
        joined = {"NSM_JOIN_LISTEN_ON": join, "NSM_JOIN_FOLDER": f"{folder}/join", "NSM_JOIN_REGISTRY": registry}
        started(
            stack,
            ["identity"],
            {
                **joined,
                "NSM_ENTRIES": f"socket:{folder}/registry-id=spiffe://bench.mesh/registry",
                "NSM_TRUST_DOMAIN": "bench.mesh",
            },
        )
        of_registry = {"NSM_LISTEN_ON": f"tcp://{registry}", "SPIFFE_ENDPOINT_SOCKET": f"unix://{folder}/registry-id"}
        started(stack, ["registry"], {**trusted, **of_registry})
        token = subprocess.run(
            [*NSM, "identity", "token", "edge-1"],
            env={**os.environ, "NSM_JOIN_FOLDER": f"{folder}/join"},
            capture_output=True,
            check=True,
            text=True,
            timeout=_PATIENCE,
        ).stdout.strip()
        node = {
            **trusted,
            **own,
            "NSM_JOIN_TOKEN": token,
            "NSM_STATE_FOLDER": f"{folder}/state",
            "NSM_LISTEN_ON": f"unix://{folder}/nsmgr,tcp://{manager}",
            "NSM_PROXY_LISTEN_ON": f"tcp://{proxy}",
        }
        process = started(stack, ["node", "--join", "bench.mesh"], node, until="services")
        away = ["unshare", "--net"]
        started(stack, ["nse"], {**own, "NSM_NAME": "endpoint", "NSM_SERVICE_NAMES": "web"}, before=away)
        wires = ",".join(f"kernel://web/nsm-{number}" for number in range(WIRES))
        started(stack, ["nsc"], {**own, "NSM_NAME": "client", "NSM_NETWORK_SERVICES": wires}, before=away)
        return resident_mib(process.pid)


def started(
    stack: ExitStack,
    command: list[str],
    environment: Mapping[str, str],
    *,
    until: str = "",
    before: list[str] | None = None,
    program: list[str] | None = None,
) -> subprocess.Popen[bytes]:
    """A component, or another `program`, that is ready and has said `until`; it ends with the stack."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("NSM_")}
    words = program or [*(before or []), *NSM, *command]
    process = subprocess.Popen(words, env={**kept, **environment}, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    stack.callback(_stop, process)
    assert process.stderr is not None
    line = b""
    for line in process.stderr:
        found = json.loads(line) if line.startswith(b"{") else {}
        if found.get("event") == "ready" and (not until or until in found):
            return process
    raise RuntimeError(f"{words} ended with {process.wait()} before it was ready: {line.decode()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.communicate(timeout=_PATIENCE)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in found:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in found]


if __name__ == "__main__":
    print(f"node_process_mib{measure():>10.1f} MiB")
