"""The system in a cluster of two nodes, once for all tests that need it."""

import pytest

from tests.k8s.system import MANIFESTS, bring_up, cluster_with_images


@pytest.fixture(scope="session")
def system():
    running = bring_up(cluster_with_images())
    yield running
    running.kubectl("delete", "-k", MANIFESTS, "--ignore-not-found", "--timeout=100s")


@pytest.fixture
def kubectl(system):
    return system.kubectl
