"""Endpoints in a cluster on demand: the pods that a supplier creates, and removes when they have ended."""

import asyncio

import pytest

from nsm.apis.connection import Connection
from nsm.chains.core import InvalidRequest
from nsm.services.nse_supplier.pods import PodSupplier, PodTemplate
from tests.kube.stand_in import eventually, forbidden, stand_in

PODS = "/api/v1/namespaces/shop/pods"
TEMPLATE = """
apiVersion: v1
kind: Pod
metadata:
  name: nse-{{ index .Labels "nodeName" }}
  labels:
    app: nse
spec:
  nodeName: {{index .Labels "nodeName"}}
  restartPolicy: Never
  containers:
    - name: nse
      image: nse
      env:
        - {name: NSM_SERVICE_NAMES, value: "{{ .NetworkService }}"}
"""


@pytest.fixture
async def server():
    async with stand_in() as running:
        running.put("/api/v1/nodes/node-1")
        yield running


@pytest.fixture
async def api(server):
    from nsm.kube import connect

    async with connect(server.url) as client:
        yield client


def supplier(api, text=TEMPLATE):
    return PodSupplier(api, PodTemplate(text), namespace="shop", name="supplier")


def connection(**labels):
    return Connection(id="c", network_service="shop", labels=labels)


def end(server, pod, phase):
    server.put(f"{PODS}/{pod['metadata']['name']}", labels=pod["metadata"]["labels"], status={"phase": phase})


async def test_a_pod_is_created_on_the_clients_node(server, api):
    assert await supplier(api).supply(connection(nodeName="node-1")) == "nse-node-1"
    pod = server.at(f"{PODS}/nse-node-1")
    assert pod["spec"]["nodeName"] == "node-1"
    assert pod["metadata"]["labels"] == {"app": "nse", "createdBy": "supplier"}
    assert pod["spec"]["containers"][0]["env"] == [{"name": "NSM_SERVICE_NAMES", "value": "shop"}]


async def test_a_node_that_the_cluster_does_not_have_is_left_to_the_scheduler(server, api):
    await supplier(api).supply(connection(nodeName="elsewhere"))
    assert "nodeName" not in server.at(f"{PODS}/nse-elsewhere")["spec"]


async def test_a_supplier_that_may_not_read_nodes_leaves_the_node_to_the_template(server, api):
    server.refuse = lambda request: forbidden(request) if "/nodes/" in request.path else None
    await supplier(api).supply(connection(nodeName="node-1"))
    assert server.at(f"{PODS}/nse-node-1")["spec"]["nodeName"] == "node-1"


async def test_clients_at_once_share_a_pod_and_one_that_has_ended_is_replaced(server, api):
    supplying = supplier(api)
    for _ in range(2):
        assert await supplying.supply(connection(nodeName="node-1")) == "nse-node-1"
    first = server.at(f"{PODS}/nse-node-1")
    end(server, first, "Succeeded")
    await supplying.supply(connection(nodeName="node-1"))
    assert "status" not in server.at(f"{PODS}/nse-node-1")


async def test_pods_that_have_ended_are_removed_and_those_of_others_are_not(server, api):
    supplying = supplier(api)
    await supplying.supply(connection(nodeName="node-1"))
    mine = server.at(f"{PODS}/nse-node-1")
    end(server, mine, "Failed")
    server.put(f"{PODS}/other", labels={"createdBy": "somebody"}, status={"phase": "Failed"})
    cleaning = asyncio.ensure_future(supplying.clean_up())
    await eventually(lambda: f"{PODS}/nse-node-1" not in server.paths())
    cleaning.cancel()
    assert f"{PODS}/other" in server.paths()


@pytest.mark.parametrize("value", ["a\n  hostNetwork: true", "a, hostNetwork: true", "", "../../etc"])
async def test_a_client_cannot_add_anything_to_the_pod(api, value):
    """Its labels are its own choice."""
    with pytest.raises(InvalidRequest, match=r"the template of the pod needs .*nodeName.* for this client"):
        await supplier(api).supply(connection(nodeName=value))


async def test_names_may_be_unique(server, api):
    text = TEMPLATE.replace('nse-{{ index .Labels "nodeName" }}', "nse-{{ uuid }}")
    names = {await supplier(api, text).supply(connection(nodeName="node-1")) for _ in range(2)}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("kind: Deployment", "it is not the manifest of a Pod"),
        ("kind: Pod", "it has no metadata, or no spec"),
        ("kind: [", "line 2"),
    ],
)
def test_a_template_that_is_no_pod_is_refused_at_the_start(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        PodTemplate(text)
