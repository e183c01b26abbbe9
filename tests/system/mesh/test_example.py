"""What the documentation has a reader run, as real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.system.mesh.conftest import NSM, until

EXAMPLE = ROOT / "examples" / "serve_endpoint.py"


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


def test_the_mesh_that_the_documentation_starts_by_hand_has_a_wire():
    """Its commands, as they stand there, where they can leave nothing: in namespaces that end with the shell."""
    (block,) = blocks(ROOT / "docs" / "local-mesh.md", "sh")
    script = f"mount -t tmpfs tmpfs /run && ip link set lo up\n{block.text}"
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*alone, "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert "1 received" in done.stdout
