"""A SPIRE, and the system by its identities, in a cluster of two nodes; once for all tests."""

import pytest

from tests.k8s.system import Kubectl, bring_up, cluster_with_images
from tests.spire import spire as spires


@pytest.fixture(scope="session")
def cluster():
    return cluster_with_images()


@pytest.fixture(scope="session")
def spire(cluster, tmp_path_factory):
    try:
        yield spires.bring_up(cluster, tmp_path_factory.mktemp("images"))
    finally:
        spires.take_down(Kubectl(cluster))


@pytest.fixture(scope="session")
def system(cluster, spire):
    running = bring_up(cluster, spires.VARIANT)
    yield running
    running.kubectl("delete", "-k", spires.VARIANT, "--ignore-not-found", "--timeout=100s")


@pytest.fixture
def kubectl(system):
    return system.kubectl
