"""How much memory each component takes: `-s` shows the table of docs/kubernetes.md."""

import pytest

from tests.cluster.layout import cgroup
from tests.cluster.node import HIERARCHIES
from tests.k8s.system import NAMESPACE

MIB = 2**20

pytestmark = pytest.mark.timeout(300)


def working_set(group):
    """What `kubectl top pod --containers` shows, and limits are about: all but file pages that nobody looked at lately."""
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int((group / "memory.usage_in_bytes").read_text()) - int(statistics["total_inactive_file"])


def test_a_component_takes_less_memory_than_half_of_its_limit(system, kubectl):
    """At most: with file pages, and with all that ran in the container, probes among it."""
    groups = {path.name: path for path in (HIERARCHIES / "memory" / cgroup(system.cluster.folder)).glob("*/*/*/*/*")}
    for pod in kubectl.within(NAMESPACE).get("pods")["items"]:
        limits = {each["name"]: each["resources"]["limits"]["memory"] for each in pod["spec"]["containers"]}
        for status in pod["status"]["containerStatuses"]:
            group = groups[status["containerID"].rpartition("/")[2]]
            used, most = working_set(group) / MIB, int((group / "memory.max_usage_in_bytes").read_text()) / MIB
            print(f"{status['name']:20} working set {used:4.0f} MiB, at most {most:4.0f}")
            assert used < int(limits[status["name"]].removesuffix("Mi")) / 2, status["name"]
