"""A container of Docker that knows nothing of the mesh gets a wire, also after it was started again."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from nsm.services.agent.containers import CONTAINERD, Runtimes, docker_host
from tests.compose.engine import docker, inspect

NSM = [sys.executable, "-m", "nsm.chains"]
NAME = f"nsmtest-attached-{os.getpid()}"
MESH = f"a{os.getpid()}"


def nsm(*words, code=0):
    done = subprocess.run([*NSM, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@contextmanager
def container():
    """One that does nothing, without any network of the engine's."""
    files = ["/usr/bin/sleep", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
    with subprocess.Popen(["tar", "-c", "-h", "-P", *files], stdout=subprocess.PIPE) as packed:
        subprocess.run(["docker", "import", "-", f"{NAME}:1"], stdin=packed.stdout, check=True, timeout=60)
    try:
        docker("run", "-d", "--network", "none", "--name", NAME, f"{NAME}:1", "/usr/bin/sleep", "1000")
        yield
    finally:
        docker("rm", "-f", NAME, check=False)
        docker("rmi", "-f", f"{NAME}:1", check=False)


@contextmanager
def mesh():
    nsm("mesh", "--name", MESH, "up")
    try:
        yield
    finally:
        nsm("mesh", "--name", MESH, "down")


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met


def listed():
    return json.loads(nsm("attach", "--name", MESH, "--json"))


def test_a_container_has_its_wire_also_after_it_was_started_again():
    with container(), mesh():
        shown = nsm("attach", "--name", MESH, "--container", NAME, "--as", "web", "kernel://icmp-responder/nsm-1")
        assert shown.startswith("web: nsm-1 10.0.0.")
        nsm("ping", "--name", MESH, "web/nsm-1", "-c", "2", "-i", "0.01")
        docker("restart", "-t", "1", NAME)
        pid = inspect("container", NAME)["State"]["Pid"]
        assert until(lambda: [(each["pid"], each["state"]) for each in listed()] == [(pid, "up")])
        nsm("ping", "--name", MESH, "web/nsm-1", "-c", "2", "-i", "0.01")
        docker("rm", "-f", NAME)
        assert until(lambda: listed() == [])


def test_a_container_is_found_in_the_state_of_containerd_by_its_id():
    """That of Docker's own containerd, by the beginning of the id; an engine of the tests keeps it beside its socket."""
    own = Path(docker_host()).parent / "exec/containerd/daemon/io.containerd.runtime.v2.task"
    with container():
        known = inspect("container", NAME)
        found = Runtimes(tasks=[*Runtimes.tasks, str(own)]).find(known["Id"][:12], CONTAINERD)
        assert (found.id, found.pid) == (known["Id"], known["State"]["Pid"])
