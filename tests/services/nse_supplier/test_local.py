"""Endpoints that a local mesh starts on demand: which one is asked for."""

import pytest
from structlog.testing import capture_logs

from nsm.apis.connection import Connection
from nsm.chains.core import NotFound
from nsm.services.nse_supplier.local import WANTED, LocalSupplier, Supplied, parse_supplied


def test_endpoints_are_names_with_nodes():
    assert parse_supplied("a@node-1, b@node-2,") == (Supplied("a", "node-1"), Supplied("b", "node-2"))
    for text in ("a", "@node-1", "a@"):
        with pytest.raises(ValueError, match="expected an endpoint and its node, such as shop-1@node-1"):
            parse_supplied(text)


@pytest.mark.parametrize(("node", "name"), [("node-1", "a"), ("node-2", "b"), ("elsewhere", "a"), ("", "a")])
async def test_the_mesh_is_asked_for_an_endpoint_on_the_clients_node_if_there_is_one(node, name):
    supplier = LocalSupplier(parse_supplied("a@node-1,b@node-2"))
    with capture_logs() as logs:
        assert await supplier.supply(Connection(labels={"nodeName": node})) == name
    assert [(line["event"], line["endpoint"]) for line in logs] == [(WANTED, name)]


async def test_a_supplier_without_endpoints_says_so():
    with pytest.raises(NotFound, match="no endpoint of 'shop' is on demand"):
        await LocalSupplier(()).supply(Connection(network_service="shop"))
