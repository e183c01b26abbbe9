"""The JSON form of messages: field names are those of the .proto files, keys of maps are nobody's business."""

import pytest

from nsm.apis import jsonform
from nsm.apis.connection import Connection, ConnectionEvent
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels


def test_fields_have_their_proto_names():
    context = ConnectionContext(mtu=9, ip_context=IpContext(src_routes=[Route(next_hop="10.0.0.1")]))
    form = {"MTU": 9, "ip_context": {"src_routes": [{"nextHop": "10.0.0.1"}]}}
    assert jsonform.to_json(context) == form
    assert jsonform.from_json(ConnectionContext, form) == context


@pytest.mark.parametrize("key", ["next_hop", "nextHop", "mtu", "MTU", "labels", "networkService"])
def test_keys_of_maps_are_left_alone(key):
    labels = NetworkServiceLabels(labels={key: key})
    endpoint = NetworkServiceEndpoint(network_service_labels={key: labels})
    assert jsonform.to_json(endpoint) == {"network_service_labels": {key: {"labels": {key: key}}}}
    event = ConnectionEvent(connections={key: Connection(id=key, context=ConnectionContext(mtu=9))})
    form = jsonform.to_json(event)
    assert form == {"connections": {key: {"id": key, "context": {"MTU": 9}}}}
    assert jsonform.from_json(ConnectionEvent, form) == event
