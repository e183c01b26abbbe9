"""`nsm health` as a process: what a probe of an orchestrator calls."""

import os
import subprocess
import sys

import pytest

NSM = [sys.executable, "-m", "nsm.chains"]


def health(url, workload_api, *options):
    environment = {"PATH": os.environ["PATH"], "SPIFFE_ENDPOINT_SOCKET": workload_api}
    return subprocess.run(
        [*NSM, "health", *options, url], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.fixture
def workload_api(tmp_path):
    socket = tmp_path / "agent.sock"
    environment = {"PATH": os.environ["PATH"], "NSM_ENTRIES": f"socket:{socket}=spiffe://local.mesh/x"}
    process = subprocess.Popen([*NSM, "identity"], env=environment, stderr=subprocess.PIPE, text=True)
    assert '"ready"' in process.stderr.readline()
    yield f"unix://{socket}"
    process.terminate()
    process.communicate(timeout=10)


def test_the_workload_api_is_asked_for_an_identity(workload_api):
    done = health(workload_api, workload_api)
    assert (done.returncode, done.stdout) == (0, f"{workload_api}: gives spiffe://local.mesh/x\n")


def test_a_component_that_does_not_answer_is_not_healthy(workload_api, tmp_path):
    done = health(f"unix://{tmp_path}/nobody", workload_api)
    assert done.returncode == 1
    assert done.stderr.startswith("nsm health: ")


def test_a_component_is_not_called_dead_because_nobody_gives_identities(workload_api, tmp_path):
    """A liveness probe would start it again, and it could not: it has an identity, which its successor would not get."""
    url, nobody = f"unix://{tmp_path}/nobody", f"unix://{tmp_path}/no-agent"
    done = health(url, nobody, "--alive")
    assert (done.returncode, done.stdout.partition("; ")[0]) == (0, f"{url}: not asked")
    assert health(url, nobody).returncode == 1
    assert health(url, workload_api, "--alive").returncode == 1, "it can be asked, and does not answer"


def test_an_endpoint_listens_where_it_is_told(workload_api, tmp_path):
    """With nobody to register at it waits, but it serves: what a probe sees must not depend on its manager."""
    socket = f"unix://{tmp_path}/nse.sock"
    environment = {
        "PATH": os.environ["PATH"],
        "SPIFFE_ENDPOINT_SOCKET": workload_api,
        "NSM_LISTEN_ON": socket,
        "NSM_CONNECT_TO": f"unix://{tmp_path}/nobody",
    }
    endpoint = subprocess.Popen([*NSM, "nse"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert '"identity"' in endpoint.stderr.readline()
        done = health(socket, workload_api)
        assert (done.returncode, done.stdout) == (0, f"{socket} (spiffe://local.mesh/x): serving\n")
    finally:
        endpoint.kill()
        endpoint.communicate()
