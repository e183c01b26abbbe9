"""Where a client runs, as labels of its connections."""

from nsm.chains.core import Chain
from nsm.chains.elements.client_info import ClientInfo
from nsm.chains.testing import call


async def test_where_a_client_runs_becomes_labels_unless_it_says_otherwise():
    chain = Chain([ClientInfo({"nodeName": "n", "podName": "", "clusterName": "c"})])
    assert (await chain.request(call(labels={"clusterName": "mine"}))).labels == {
        "nodeName": "n",
        "clusterName": "mine",
    }
