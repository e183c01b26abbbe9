"""Labels of a cluster on endpoints that are registered in other domains."""

from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.cluster_info import RegistryClusterInfo
from nsm.chains.testing.domains import Table
from tests.chains.registry.records import nse


async def test_each_service_of_an_endpoint_gets_the_labels_that_it_does_not_have():
    table = Table()
    chain = RegistryChain([RegistryClusterInfo(table)])
    assert (await chain.register(RegistryCall(nse("a")))).network_service_labels == {}
    table["clusterName"] = "one"
    record = await chain.register(RegistryCall(nse("a", "x", "y")))
    record.network_service_labels["y"].labels["clusterName"] = "mine"
    again = await chain.register(RegistryCall(record))
    found = {name: each.labels for name, each in again.network_service_labels.items()}
    assert found == {"x": {"clusterName": "one"}, "y": {"clusterName": "mine"}}
