"""A registry in the etcd that a Kubernetes brings: newer than Debian's."""

import pytest

from tests.cluster import binary
from tests.services.registry.etcd_cluster import EtcdCluster
from tests.services.registry.test_etcd import *  # noqa: F403 - each of its tests, with this etcd

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", autouse=True)
def newer_etcd():
    EtcdCluster.program = str(binary.programs() / "etcd")
    yield
    EtcdCluster.program = None
