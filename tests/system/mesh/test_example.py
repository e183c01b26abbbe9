"""The example endpoint as a process, inside a local mesh."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.system.mesh.conftest import NSM, until

EXAMPLE = Path(__file__).parents[3] / "examples" / "serve_endpoint.py"


def test_an_endpoint_of_one_s_own_serves_a_client_of_a_local_mesh(mesh, tmp_path):
    """It runs in a workload with that one's identity; a client asks for its service and pings it."""
    mesh.up()
    log = tmp_path / "log"
    words = [*NSM, "mesh", "--name", mesh.name, "exec", "endpoint", "--", sys.executable, EXAMPLE]
    with log.open("w") as output:
        endpoint = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        assert until(lambda: '"event": "ready"' in log.read_text()), log.read_text()
        ask = [*NSM, "nsc-init"]
        mesh.run("client", "env", "NSM_NETWORK_SERVICES=kernel://counting/count", *ask)
        assert "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", "10.9.0.0").stdout
    finally:
        os.kill(endpoint.pid, signal.SIGTERM)
        assert endpoint.wait(timeout=10) == 0
