"""`nsm health` as a process: what a probe of an orchestrator calls."""

import asyncio
import datetime
import os
import socket
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.tools.alive import check_alive
from nsm.chains.transport import SocketAccess, serve
from nsm.view.server import application, serving
from nsm.view.state import State

NSM = [sys.executable, "-m", "nsm.chains"]


def health(url, workload_api, *options):
    environment = {"PATH": os.environ["PATH"], "SPIFFE_ENDPOINT_SOCKET": workload_api}
    return subprocess.run(
        [*NSM, "health", *options, url], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.fixture
def workload_api(tmp_path):
    place = tmp_path / "agent.sock"
    environment = {"PATH": os.environ["PATH"], "NSM_ENTRIES": f"socket:{place}=spiffe://local.mesh/x"}
    process = subprocess.Popen([*NSM, "identity"], env=environment, stderr=subprocess.PIPE, text=True)
    assert '"ready"' in process.stderr.readline()
    yield f"unix://{place}"
    process.terminate()
    process.communicate(timeout=10)


def test_the_workload_api_is_asked_for_an_identity(workload_api):
    done = health(workload_api, workload_api)
    assert (done.returncode, done.stdout) == (0, f"{workload_api}: issues spiffe://local.mesh/x\n")


def test_a_component_that_does_not_answer_is_not_healthy(workload_api, tmp_path):
    done = health(f"unix://{tmp_path}/nobody", workload_api)
    assert done.returncode == 1
    assert done.stderr.startswith("nsm health: ")


async def test_a_component_is_not_called_dead_because_nobody_gives_identities(tmp_path):
    """A liveness probe would start it again, and it could not: it has an identity, which its successor would not get."""
    url, nobody = f"unix://{tmp_path}/s", f"unix://{tmp_path}/no-agent"
    identity = identity_of(Authority.create("test.mesh"), "manager")
    async with serve([url, "tcp://127.0.0.1:0"], {}, identity, name="manager") as urls:
        with capture_logs() as logs:
            for each in urls:
                done = await asyncio.to_thread(health, each, nobody, "--alive")
                assert (done.returncode, done.stdout) == (0, f"{each}: alive\n")
        assert logs == []


@pytest.mark.parametrize("options", [["--alive"], []])
def test_a_component_that_is_not_there_is_dead(workload_api, tmp_path, options):
    assert health(f"unix://{tmp_path}/nobody", workload_api, *options).returncode == 1
    assert health(f"unix://{tmp_path}/nobody", f"unix://{tmp_path}/no-agent", *options).returncode == 1


def test_a_component_that_hangs_is_dead(tmp_path):
    """The kernel takes the connection, and nobody is there to end it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/s")
        listening.listen()
        with pytest.raises(TimeoutError):
            check_alive(f"unix://{tmp_path}/s", 0.1)


def probe(*options):
    """`/bin/grpc-health-probe` of the images."""
    words = [sys.executable, "-m", "nsm.chains.tools.grpc_health_probe", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)


async def test_probes_of_upstreams_manifests_work(tmp_path):
    """Only their images are changed; such a probe has a second."""
    identity = identity_of(Authority.create("test.mesh"), "forwarder")
    async with serve([f"unix://{tmp_path}/listen.on.sock"], {}, identity, name="forwarder") as (url,):
        done = await asyncio.to_thread(probe, "-spiffe", f"-addr={url}", "-connect-timeout", "5s")
        assert (done.returncode, done.stdout) == (0, "status: SERVING\n"), done.stderr
    done = await asyncio.to_thread(probe, "-spiffe", f"-addr={url}")
    assert (done.returncode, done.stderr) == (2, f"{url} does not respond: No such file or directory\n")
    assert (await asyncio.to_thread(probe, "-addr=nonsense")).returncode == 1


def test_a_probe_that_runs_every_second_imports_next_to_nothing():
    """Half of a processor's time would be in it, else."""
    words = "import sys, nsm.chains.tools.grpc_health_probe, nsm.chains.tools.health; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=20, check=True)
    assert not {"asyncio", "ssl", "cryptography", "nsm.chains.core"} & set(done.stdout.split())


@pytest.mark.parametrize(("lifetime", "code"), [(3600, 0), (-1, 1)])
async def test_who_has_no_identity_sees_that_a_component_answers_while_its_own_lasts(tmp_path, lifetime, code):
    """A registry must not leave its Service because a probe in its pod is given no identity."""
    authority = Authority.create("test.mesh")
    identity = identity_of(authority, "registry")
    async with serve(["tcp://127.0.0.1:0", f"unix://{tmp_path}/s"], {}, identity, name="registry") as urls:
        issued = authority.issue(identity.spiffe_id, lifetime=datetime.timedelta(seconds=lifetime))
        identity.update(issued, identity.bundles)
        asked = [asyncio.to_thread(health, url, f"unix://{tmp_path}/no-agent") for url in urls]
        for done in await asyncio.gather(*asked):
            assert done.returncode == code, done.stderr
            assert ("expired at" in done.stderr) == (lifetime < 0)


async def test_a_component_that_hangs_does_not_answer_who_has_no_identity(tmp_path):
    """The kernel accepts connections for it; that is no answer."""
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(f"{tmp_path}/s")
        hung.listen()
        done = await asyncio.to_thread(health, f"unix://{tmp_path}/s", f"unix://{tmp_path}/no-agent")
    assert done.returncode == 1
    assert done.stderr.endswith(f"nsm health: cannot reach unix://{tmp_path}/s: it did not answer\n")


def test_an_endpoint_listens_where_it_is_told(workload_api, tmp_path):
    """With nobody to register at it waits, but it serves: what a probe sees must not depend on its manager."""
    url = f"unix://{tmp_path}/nse.sock"
    environment = {
        "PATH": os.environ["PATH"],
        "SPIFFE_ENDPOINT_SOCKET": workload_api,
        "NSM_LISTEN_ON": url,
        "NSM_CONNECT_TO": f"unix://{tmp_path}/nobody",
    }
    endpoint = subprocess.Popen([*NSM, "nse"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert '"identity"' in endpoint.stderr.readline()
        done = health(url, workload_api)
        assert (done.returncode, done.stdout) == (0, f"{url} (spiffe://local.mesh/x): serving\n")
        done = health(url, f"unix://{tmp_path}/no-agent")
        assert (done.returncode, done.stdout.partition(", ")[0]) == (0, f"{url}: responds; no further check")
    finally:
        endpoint.kill()
        endpoint.communicate()


async def test_a_view_is_asked_over_http(tmp_path):
    async with serving(application(State()), ["tcp://127.0.0.1:0"], access=SocketAccess()) as (url,):
        done = await asyncio.to_thread(health, url, f"unix://{tmp_path}/no-agent")
        assert (done.returncode, done.stdout) == (0, f"{url}: serving\n")
    done = await asyncio.to_thread(health, url, f"unix://{tmp_path}/no-agent")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
