"""A process of a host whose components run one by one gets a wire by `nsm attach --url`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

import pytest

from tests.system.node import SECOND, Node

pytestmark = pytest.mark.system

NSM = [sys.executable, "-m", "nsm.chains"]


@pytest.fixture
def node():
    with ExitStack() as stack:
        folder = tempfile.mkdtemp()
        stack.callback(shutil.rmtree, folder)
        viewer = {"nsmgr": {"NSM_MONITOR_VIEWERS": "spiffe://local.mesh/client"}}
        found = Node(stack, folder, of=viewer)
        for name in ("identity", "registry", "nsmgr", "forwarder", "endpoint"):
            found.start(name)
        yield found


@pytest.fixture
def process():
    found = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    yield found
    found.kill()
    found.wait()


def nsm(node, command, *words, code=0):
    """A command as the client, which may see the wires of others."""
    options = ["--url", f"unix://{node.folder}/nsmgr.sock"]
    if command in ("attach", "detach"):
        options += ["--agent", f"{node.folder}/agent"]
    environment = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{node.folder}/client.id"}
    words = [*NSM, command, *options, *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=40, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def ended(pid):
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.02)
    return not os.path.exists(f"/proc/{pid}")


def test_the_agent_of_a_host_starts_with_the_first_attachment_and_continues_after_its_end(node, process):
    """It is a process of its own, that the command leaves behind."""
    identity = ["--workload-api", f"unix://{node.folder}/{SECOND}.id"]
    place = ["--pid", str(process.pid), "--as", "web"]
    agents = []
    try:
        assert nsm(node, "attach", *place, *identity, "kernel://icmp/nsm-1").startswith("web: nsm-1 10.0.0.")
        agents.append(agent_of(node))
        (there, back) = json.loads(nsm(node, "ping", "web/nsm-1", "-c", "2", "-i", "0.01", "--json"))["directions"]
        assert (there["received"], back["received"]) == (2, 2)  # both ends were found among all namespaces
        os.kill(agents[0], 9)
        assert ended(agents[0])
        (stored,) = json.loads(nsm(node, "attach", "--json"))
        assert (stored["name"], stored["state"], stored["why"]) == ("web", "waiting", "the agent does not run")
        shown = nsm(node, "attach", *place, *identity, "kernel://icmp/nsm-1")  # which starts it again
        assert shown.startswith("web: nsm-1 10.0.0.")
        agents.append(agent_of(node))
        assert agents[1] != agents[0]
        assert nsm(node, "detach", "web") == "web is detached\n"
    finally:
        for pid in agents[1:]:
            os.kill(pid, 15)
            assert ended(pid)


def agent_of(node):
    """The process that has written the agent's log."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if (
                os.readlink(f"/proc/{pid}/fd/2") == f"{node.folder}/agent/log"
                and os.readlink(f"/proc/{pid}/cwd") == "/"
            ):
                return int(pid)
        except OSError:
            continue
    raise AssertionError("there is no agent")
