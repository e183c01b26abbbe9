"""Collectors of OpenTelemetry in this process, over gRPC and over HTTP."""

import gzip
from contextlib import asynccontextmanager

from aiohttp import web
from grpclib.const import Cardinality, Handler
from grpclib.server import Server
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

KINDS = {
    "traces": ("trace.v1.TraceService", traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "metrics": ("metrics.v1.MetricsService", metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "logs": ("logs.v1.LogsService", logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
}


class Collected:
    """What arrived, and the variables that send it here."""

    def __init__(self, **variables):
        self.variables = variables
        self.requests = {kind: [] for kind in KINDS}

    def names_of_services(self, kind):
        found = {"traces": "resource_spans", "metrics": "resource_metrics", "logs": "resource_logs"}[kind]
        return {
            attribute.value.string_value
            for request in self.requests[kind]
            for each in getattr(request, found)
            for attribute in each.resource.attributes
            if attribute.key == "service.name"
        }

    def metrics(self):
        """The latest state of each metric, by name."""
        return {
            metric.name: metric
            for request in self.requests["metrics"]
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def lines(self):
        return [
            line
            for request in self.requests["logs"]
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for line in scope.log_records
        ]


class _Service:
    def __init__(self, collected):
        self._collected = collected

    def __mapping__(self):
        found = {}
        for kind, (service, request, response) in KINDS.items():
            path = f"/opentelemetry.proto.collector.{service}/Export"
            found[path] = Handler(self._keep(kind, response), Cardinality.UNARY_UNARY, request, response)
        return found

    def _keep(self, kind, response):
        async def keep(stream):
            self._collected.requests[kind].append(await stream.recv_message())
            await stream.send_message(response())

        return keep


@asynccontextmanager
async def over_grpc():
    server_side = Collected()
    server = Server([_Service(server_side)])
    await server.start("127.0.0.1", 0)
    port = server._server.sockets[0].getsockname()[1]
    server_side.variables = {"TELEMETRY": "true", "NSM_OPEN_TELEMETRY_ENDPOINT": f"127.0.0.1:{port}"}
    try:
        yield server_side
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def over_http():
    collected = Collected()

    async def keep(request):
        kind = request.match_info["kind"]
        body = await request.read()
        message = KINDS[kind][1]()
        message.ParseFromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        collected.requests[kind].append(message)
        return web.Response(body=KINDS[kind][2]().SerializeToString(), content_type="application/x-protobuf")

    application = web.Application()
    application.router.add_post("/v1/{kind}", keep)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    collected.variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_METRICS_EXPORTER": "otlp",
    }
    try:
        yield collected
    finally:
        await runner.cleanup()
