"""Labels of a cluster on connections that leave it."""

from nsm.chains.core import Chain
from nsm.chains.elements.cluster_info import ClusterInfo
from nsm.chains.testing import call
from nsm.chains.testing.domains import Table


async def test_a_connection_keeps_the_labels_of_its_client_s_cluster():
    chain = Chain([ClusterInfo(Table(clusterName="one", zone="a")), ClusterInfo(Table(clusterName="two"))])
    assert (await chain.request(call(labels={"app": "x"}))).labels == {"app": "x", "clusterName": "one", "zone": "a"}
