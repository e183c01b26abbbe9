"""The cluster itself: what starts it, and that nothing of it is left."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import layout
from tests.cluster.cluster import Cluster
from tests.cluster.node import HIERARCHIES

pytestmark = pytest.mark.timeout(300)


def processes(text):
    """The command lines of all processes that have `text` in theirs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def mounts(folder):
    """The mounts of this machine that a cluster in `folder` may have made; others come and go."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if re.search(rf"{re.escape(str(folder))}|/kubelet|/k8s\.io/|/cni", line)}


def test_a_cluster_starts_runs_a_pod_and_leaves_nothing(tmp_path):
    folder = tmp_path / "cluster"
    before = mounts(folder)
    cluster = Cluster(folder)
    cluster.up()
    try:
        run = [
            "run",
            "pod",
            "--image=localhost/nsm/busybox:1",
            "--restart=Never",
            "--attach",
            "--command",
            "--",
            "echo",
            "it runs",
        ]
        done = subprocess.run([cluster.kubectl, *run], capture_output=True, text=True, timeout=120, check=False)
        assert "it runs" in done.stdout, done.stderr
        assert list(HIERARCHIES.glob(f"*/{layout.cgroup(folder)}"))
    finally:
        cluster.down()
    assert not folder.exists()
    assert processes(str(folder)) == []
    assert list(HIERARCHIES.glob(f"*/{layout.cgroup(folder)}")) == []
    assert mounts(folder) == before


def test_an_api_server_alone_runs_a_command_and_ends_with_it():
    words = [sys.executable, "-m", "tests.cluster", "api", "--", "kubectl", "get", "--raw", "/version"]
    done = subprocess.run(words, cwd=layout.CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert '"gitVersion": "v1.34' in done.stdout, done.stderr
    assert processes("nsm-api-") == []
