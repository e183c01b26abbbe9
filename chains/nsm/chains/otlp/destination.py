"""The exporters of a component, by its configuration.

Over HTTP they are OpenTelemetry's own. Over gRPC they encode with OpenTelemetry's encoders and call with grpclib, which
every component has: its own exporter needs grpcio, which is as large as all else in an image.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError
from opentelemetry.sdk.resources import Resource

from nsm.chains.config import Common
from nsm.chains.config.address import parse_address
from nsm.chains.logs import log

TIMEOUT = 3
"""Seconds for one export, repeats included: how long a component waits when it stops if the collector is down."""


def resource_of(component: str, config: Common) -> Resource:
    """Whose spans, metrics and logs they are."""
    where: Mapping[str, str] = {"k8s.node.name": config.node_name, "k8s.pod.name": config.pod_name}
    return Resource.create({"service.name": component, **{key: value for key, value in where.items() if value}})


def span_exporter(config: Common) -> Any:
    """Sends spans."""
    if config.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - large

        return OTLPSpanExporter(timeout=TIMEOUT)
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

    kinds = service.ExportTraceServiceRequest, service.ExportTraceServiceResponse
    return _Grpc(config, "trace.v1.TraceService", kinds, encode_spans, SpanExportResult)


def figure_exporter(config: Common) -> Any:
    """Sends metrics."""
    if config.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        return OTLPMetricExporter(timeout=TIMEOUT)
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics  # noqa: PLC0415
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import MetricExportResult  # noqa: PLC0415

    kinds = service.ExportMetricsServiceRequest, service.ExportMetricsServiceResponse
    return _Grpc(config, "metrics.v1.MetricsService", kinds, encode_metrics, MetricExportResult)


def line_exporter(config: Common) -> Any:
    """Sends lines of the log."""
    if config.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # noqa: PLC0415

        return OTLPLogExporter(timeout=TIMEOUT)
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs  # noqa: PLC0415
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import LogRecordExportResult  # noqa: PLC0415

    kinds = service.ExportLogsServiceRequest, service.ExportLogsServiceResponse
    return _Grpc(config, "logs.v1.LogsService", kinds, encode_logs, LogRecordExportResult)


class _Grpc:
    """Sends one kind of data over gRPC, each batch over a connection of its own, in the exporting thread.

    A collector that cannot be reached, or refuses, is logged once, until it accepts again.
    """

    def __init__(
        self,
        config: Common,
        service: str,
        kinds: tuple[Any, Any],
        encode: Callable[[Any], Any],
        results: Any,
    ) -> None:
        self._address = parse_address(config.open_telemetry_endpoint)
        self._method = f"/opentelemetry.proto.collector.{service}/Export"
        self._kinds, self._encode, self._results = kinds, encode, results
        self._told = ""
        self._one_at_a_time = threading.Lock()

    def export(self, batch: Any, **_: Any) -> Any:
        """Send a batch; returns whether that succeeded."""
        with self._one_at_a_time:
            try:
                asyncio.run(self._send(self._encode(batch)))
            except (OSError, TimeoutError, GRPCError, StreamTerminatedError) as error:
                self._tell(f"{type(error).__name__}: {error}")
                return self._results.FAILURE
            self._told = ""
            return self._results.SUCCESS

    async def _send(self, message: Any) -> None:
        address = self._address
        channel = Channel(path=address.path) if address.is_unix else Channel(address.host, address.port)
        try:
            async with asyncio.timeout(TIMEOUT):
                await UnaryUnaryMethod(channel, self._method, *self._kinds)(message)
        finally:
            channel.close()

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.warning("the collector did not accept", what=self._method, at=str(self._address), reason=reason)

    def shutdown(self, **_: Any) -> None:
        """Nothing is left open."""

    def force_flush(self, **_: Any) -> bool:
        """Every batch is sent at once."""
        return True
