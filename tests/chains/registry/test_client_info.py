"""Where an endpoint runs, as labels."""

from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.client_info import RegistryClientInfo
from tests.chains.registry.records import nse


async def test_where_an_endpoint_runs_becomes_labels_of_each_of_its_services():
    chain = RegistryChain([RegistryClientInfo({"nodeName": "n1", "podName": ""})])
    record = await chain.register(RegistryCall(nse("a", "x", "y")))
    assert {name: each.labels for name, each in record.network_service_labels.items()} == {
        "x": {"nodeName": "n1"},
        "y": {"nodeName": "n1"},
    }
