"""Traces by OTLP over HTTP, received by a collector: real processes, real protobuf."""

import gzip
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from nsm.forwarder_kernel.netlink.namespaces import entered

from .forwarder_kernel.test_dataplane import Host

pytestmark = pytest.mark.system
NAMES = ["identity", "registry", "nsmgr", "forwarder", "endpoint", "client"]


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


class Node:
    """Components as processes in one network namespace, with a collector."""

    def __init__(self, stack, folder):
        self.stack, self.folder, self.host = stack, folder, Host()
        stack.callback(os.close, self.host.descriptor)
        self.host.run("ip", "link", "set", "lo", "up")
        with entered(self.host.descriptor):
            self.collector = stack.enter_context(Collector())
        thread = threading.Thread(target=self.collector.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stack.callback(thread.join)
        stack.callback(self.collector.shutdown)
        self.processes = {}

    def start(self, name, command, until, **variables):
        environment = {
            "PATH": os.environ["PATH"],
            "NSM_NAME": name,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/{name}.id",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector.server_port}",
            **variables,
        }
        words = ["nsenter", f"--net={self.host.path}", sys.executable, "-m", "nsm.chains", command]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        self.processes[name] = process
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        for line in process.stderr:
            if until in line:
                return
        raise AssertionError(f"{name} ended before it was {until}")

    def stop(self, name):
        self.processes[name].terminate()
        self.processes[name].communicate(timeout=20)


def test_one_trace_spans_all_components_from_the_client_to_the_endpoint(tmp_path):
    """Each component's first span is a child of the call that the one before it made."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        entries = ",".join(f"socket:{tmp_path}/{name}.id=spiffe://local.mesh/{name}" for name in NAMES)
        node.start("identity", "identity", "ready", NSM_ENTRIES=entries)
        manager = f"unix://{tmp_path}/nsmgr.sock"
        node.start("registry", "registry", "ready", NSM_LISTEN_ON=f"unix://{tmp_path}/registry.sock")
        node.start(
            "nsmgr",
            "nsmgr",
            "ready",
            NSM_LISTEN_ON=f"{manager},tcp://127.0.0.1:5001",
            NSM_REGISTRY_URL=f"unix://{tmp_path}/registry.sock",
        )
        node.start(
            "forwarder",
            "forwarder-kernel",
            "ready",
            NSM_CONNECT_TO=manager,
            NSM_LISTEN_ON=f"unix://{tmp_path}/forwarder.sock",
        )
        node.start(
            "endpoint",
            "nse",
            "ready",
            NSM_CONNECT_TO=manager,
            NSM_SERVICE_NAMES="icmp",
            NSM_CIDR_PREFIX="10.0.0.0/24",
        )
        time.sleep(0.3)
        node.start("client", "nsc", "ready", NSM_CONNECT_TO=manager, NSM_NETWORK_SERVICES="kernel://icmp/nsm-1")
        for name in reversed(NAMES):
            node.stop(name)
        spans = node.collector.spans
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
    elements = {span.name for name, span in trace.values() if name == "endpoint"}
    assert {"update_path.Request", "authorize.Request", "point2_point_ipam.Request"} <= elements
