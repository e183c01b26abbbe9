"""Traces of a local mesh at a collector outside of it."""

import os
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.system


class Collector:
    """A server that takes OTLP over HTTP, and the spans that came."""

    def __init__(self):
        self.spans, self.paths = [], set()

    def take(self, path, body):
        self.paths.add(path)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector():
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            found.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/otlp"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_one_trace_spans_all_components_of_a_request(mesh, collector):
    """Each component's call is inside the one that caused it, in whichever process that was."""
    mesh.up(env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    mesh.nsm("down")
    assert collector.paths == {"/otlp/v1/traces"}
    known = {span.span_id: (service, span) for service, span in collector.spans}
    traces = defaultdict(list)
    for service, span in collector.spans:
        traces[span.trace_id].append((service, span))
    request = max(traces.values(), key=len)
    assert {service for service, _ in request} >= {"client", "nsmgr-node-1", "forwarder-node-1", "endpoint"}
    served = {
        service: span
        for service, span in request
        if span.name.endswith("/Request") and span.kind == span.SPAN_KIND_SERVER
    }
    callers = {}
    for service, span in served.items():
        assert span.parent_span_id in known
        callers[service] = known[span.parent_span_id][0]
    assert callers == {"nsmgr-node-1": "client", "forwarder-node-1": "nsmgr-node-1", "endpoint": "forwarder-node-1"}


def test_a_collector_that_is_not_there_keeps_nobody_waiting(mesh):
    mesh.up(env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    begin = time.monotonic()
    mesh.nsm("down")
    assert time.monotonic() - begin < 30


def test_a_collector_that_cannot_be_reached_from_a_local_mesh_is_refused(mesh):
    told = mesh.up(env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example"}, code=1).stderr
    assert "a local mesh sends traces to http:// or file://" in told
