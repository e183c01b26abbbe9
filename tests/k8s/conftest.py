"""The system in a cluster of two nodes, once for all tests that need it."""

import pytest
import yaml

from tests.k8s.system import MANIFESTS, NAMESPACE, bring_up, cluster_with_images
from tests.k8s.wires import with_wires


@pytest.fixture(scope="session")
def system():
    running = bring_up(cluster_with_images())
    yield running
    running.kubectl("delete", "-k", MANIFESTS, "--ignore-not-found", "--timeout=100s")


@pytest.fixture
def kubectl(system):
    return system.kubectl


@pytest.fixture
def wires(system):
    """As `with_wires`."""
    with with_wires(system) as mine:
        yield mine


@pytest.fixture
def excluded(system):
    """Says which prefixes managers keep from wires, as of now."""
    kubectl = system.kubectl.within(NAMESPACE)
    return lambda: yaml.safe_load(kubectl.get("configmap", "excluded-prefixes")["data"]["excluded_prefixes.yaml"])[
        "prefixes"
    ]
