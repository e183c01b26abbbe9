"""The rules that every NSM program must agree on."""

import re

import pytest

from nsm.apis import jsonform
from nsm.apis.connection import Connection, MonitorScopeSelector
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import Begin, Call, Chain, MeshError
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.update_path import UpdatePath
from nsm.chains.model import ipcontext
from nsm.chains.model.matching import endpoint_matches, match_endpoints, selects
from nsm.chains.model.nsurl import parse_nsurl
from tests.golden.cases import cases

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize("case", cases("match_endpoint"))
def test_endpoints_for_a_client(case):
    service = jsonform.from_json(NetworkService, case["network_service"])
    endpoints = [jsonform.from_json(NetworkServiceEndpoint, endpoint) for endpoint in case["endpoints"]]
    assert [found.name for found in match_endpoints(case["client_labels"], service, endpoints)] == case["matched"]


@pytest.mark.parametrize("case", cases("find_endpoint"))
def test_what_a_find_answers_with(case):
    query = jsonform.from_json(NetworkServiceEndpoint, case["query"])
    endpoint = jsonform.from_json(NetworkServiceEndpoint, case["endpoint"])
    assert endpoint_matches(query, endpoint) == case["matches"]


@pytest.mark.parametrize("case", cases("monitor_selector"))
def test_whose_events_a_monitor_gets(case):
    selector = jsonform.from_json(MonitorScopeSelector, case["selector"])
    assert selects(selector, jsonform.from_json(Connection, case["connection"])) == case["matches"]


@pytest.mark.parametrize("case", cases("nsurl"))
def test_the_urls_of_clients(case):
    if case.get("error"):
        with pytest.raises(ValueError, match="names no service|cannot be parsed"):
            parse_nsurl(case["url"])
        return
    wish = parse_nsurl(case["url"])
    assert wish.network_service == case["network_service"]
    assert jsonform.to_json(wish.mechanism) == case["mechanism"]
    assert wish.labels == case["labels"]


@pytest.mark.parametrize("case", cases("ip_routes"))
def test_routes_that_follow_from_addresses(case):
    context = jsonform.from_json(IpContext, case["ip_context"])
    found = {
        "src_ip_routes": ipcontext.src_ip_routes(context),
        "dst_ip_routes": ipcontext.dst_ip_routes(context),
        "src_routes_with_explicit_next_hop": ipcontext.src_routes_with_next_hop(context),
        "dst_routes_with_explicit_next_hop": ipcontext.dst_routes_with_next_hop(context),
    }
    for name, routes in found.items():
        assert [jsonform.to_json(route) for route in routes] == case[name], name


def without_fresh_ids(value, known):
    """Ids that look like a uuid and were not in the input are equal to each other."""
    if isinstance(value, dict):
        return {key: without_fresh_ids(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [without_fresh_ids(item, known) for item in value]
    return "fresh" if isinstance(value, str) and UUID.fullmatch(value) and value not in known else value


class Seen:
    """The rest of a chain: notes what it saw."""

    async def request(self, call):
        self.connection = jsonform.to_json(call.connection)
        return call.connection


@pytest.mark.parametrize("case", cases("update_path"))
async def test_the_path_gains_a_segment(case):
    known, seen = str(case["connection"]), Seen()
    call = Call(NetworkServiceRequest(connection=jsonform.from_json(Connection, case["connection"])))
    chain = Chain([UpdatePath(case["element_name"])], seen)
    if case.get("error"):
        with pytest.raises(MeshError):
            await chain.request(call)
        return
    returned = jsonform.to_json(await chain.request(call))
    assert without_fresh_ids(seen.connection, known) == without_fresh_ids(case["seen_by_next"], known)
    assert without_fresh_ids(returned, known) == without_fresh_ids(case["returned"], known)


@pytest.mark.parametrize("case", cases("point2point_ipam"))
async def test_addresses_of_a_wire(case):
    async with Chain([Begin(), Point2PointIpam(case["prefixes"])]) as chain:
        for step in case["steps"]:
            context = jsonform.from_json(IpContext, step.get("ip_context") or {})
            connection = Connection(id=step["id"], context=ConnectionContext(ip_context=context))
            call = Call(NetworkServiceRequest(connection=connection))
            if step["op"] == "close":
                await chain.close(call)
            elif step.get("error"):
                with pytest.raises(MeshError):
                    await chain.request(call)
            else:
                returned = await chain.request(call)
                assert jsonform.to_json(returned.context.ip_context) == step["returned"]
