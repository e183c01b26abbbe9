"""Traces by OTLP over HTTP, received by a collector: real processes, real protobuf."""

import gzip
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from nsm.chains.netlink.namespaces import entered

from .node import NAMES, Node

pytestmark = pytest.mark.system


class Collector(HTTPServer):
    """Keeps the spans that it is sent, each with the name of its component."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Receive)
        self.spans = {}


class _Receive(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
        for resource in request.resource_spans:
            name = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.server.spans[span.span_id] = (name, span)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_one_trace_spans_all_components_from_the_client_to_the_endpoint(tmp_path):
    """Each component's first span is a child of the call that the one before it made."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        with entered(node.host.descriptor):
            collector = stack.enter_context(Collector())
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stack.callback(thread.join)
        stack.callback(collector.shutdown)
        node.common["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
        node.start_all()
        for name in reversed(NAMES):
            node.stop(name)
        spans = collector.spans
    roots = [
        span for name, span in spans.values() if name == "client" and "Request" in span.name and not span.parent_span_id
    ]
    assert len(roots) == 1
    trace = {key: (name, span) for key, (name, span) in spans.items() if span.trace_id == roots[0].trace_id}
    assert [span for _, span in trace.values() if not span.parent_span_id] == roots
    assert all(not span.parent_span_id or span.parent_span_id in trace for _, span in trace.values())
    hops = {
        (trace[span.parent_span_id][0], name)
        for name, span in trace.values()
        if span.kind == Span.SPAN_KIND_SERVER and span.name == "networkservice.NetworkService/Request"
    }
    assert hops == {("client", "nsmgr"), ("nsmgr", "forwarder"), ("forwarder", "endpoint")}
    for name, span in trace.values():
        if span.kind == Span.SPAN_KIND_SERVER:
            assert trace[span.parent_span_id][1].kind == Span.SPAN_KIND_CLIENT
            assert trace[span.parent_span_id][1].name == span.name
        elif span.parent_span_id:
            assert trace[span.parent_span_id][0] == name
    for _, span in trace.values():
        if (
            span.name in {"networkservice.NetworkService/Request", "authorize.Request"}
            and span.kind != Span.SPAN_KIND_CLIENT
        ):
            told = {a.key: a.value.string_value for a in span.attributes}
            assert {key: told[f"nsm.{key}"] for key in ("network_service", "client", "endpoint", "mechanism")} == {
                "network_service": "icmp",
                "client": "client",
                "endpoint": "endpoint",
                "mechanism": "KERNEL",
            }
            assert told["nsm.connection"]
    elements = {span.name for name, span in trace.values() if name == "endpoint"}
    assert {"update_path.Request", "authorize.Request", "point2_point_ipam.Request"} <= elements
