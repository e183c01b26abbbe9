"""Traces by OpenTelemetry: a span per RPC and per element, W3C context across processes.

Off unless the environment names a destination; the OpenTelemetry SDK is imported only then:

| variable | destination |
| --- | --- |
| `OTEL_EXPORTER_OTLP_ENDPOINT=http://host:4318` | that collector, by OTLP over HTTP |
| `OTEL_EXPORTER_OTLP_ENDPOINT=file:///folder` | one file per component in that folder, one JSON object per line |
| `TELEMETRY=true` | `NSM_OPEN_TELEMETRY_ENDPOINT`, by OTLP over gRPC |

Spans of elements and servers carry the attributes that `attributes_of` returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.config import Common
from nsm.chains.core import InvalidRequest, RegistryCall
from nsm.chains.core.tracing import enable

_FILE = "file://"


@contextmanager
def traces(component: str, config: Common) -> Iterator[None]:
    """Trace the body if `config` names a destination. Raises `InvalidRequest` if the exporter's package is missing."""
    if not (config.otlp_endpoint or config.telemetry):
        yield
        return
    try:
        import opentelemetry.sdk.trace as sdk  # noqa: PLC0415 - only when tracing is on
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

        from nsm.chains.otlp.destination import resource_of, span_exporter  # noqa: PLC0415
    except ImportError as error:
        told = f"tracing is enabled, but {error.name} is missing: install nsm-chains[otlp]"
        raise InvalidRequest(told) from None
    provider = sdk.TracerProvider(resource=resource_of(component, config))
    if config.otlp_endpoint.startswith(_FILE):
        written: Any = _FileExporter(Path(config.otlp_endpoint.removeprefix(_FILE)), component)
        provider.add_span_processor(SimpleSpanProcessor(written))
    else:
        provider.add_span_processor(BatchSpanProcessor(span_exporter(config)))
    enable(_Hooks(provider.get_tracer("nsm")))
    try:
        yield
    finally:
        enable(None)
        provider.shutdown()


def attributes_of(call: Any, answer: Any = None) -> dict[str, str]:
    """The attributes of a span for a Request, a Close or a registry call; unknown ones are left out.

    The connection's id is this component's; its endpoint and its mechanism are the chosen ones.
    """
    if isinstance(call, RegistryCall):
        return {"nsm.record": call.record.name} if call.record.name else {}
    connection = answer if isinstance(answer, Connection) else call.connection
    path, mechanism = connection.path, connection.mechanism
    found = {
        "nsm.connection": call.connection.id,
        "nsm.network_service": connection.network_service,
        "nsm.client": path.path_segments[0].name if path is not None and path.path_segments else "",
        "nsm.endpoint": connection.network_service_endpoint_name,
        "nsm.mechanism": mechanism.type if mechanism is not None else "",
    }
    return {name: value for name, value in found.items() if value}


class _Hooks:
    """Opens spans with one tracer."""

    def __init__(self, tracer: Any) -> None:
        from opentelemetry.trace import SpanKind, get_current_span  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._tracer, self._kind, self._propagator = tracer, SpanKind, TraceContextTextMapPropagator()
        self._present = get_current_span

    def span(self, name: str) -> Any:
        return self._tracer.start_as_current_span(name)

    def describe(self, call: Any, answer: Any = None) -> None:
        span = self._present()
        if span.is_recording():
            span.set_attributes(attributes_of(call, answer))

    @contextmanager
    def client(self, name: str) -> Iterator[list[tuple[str, str]]]:
        with self._tracer.start_as_current_span(name.lstrip("/"), kind=self._kind.CLIENT):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            yield list(carrier.items())

    @contextmanager
    def server(self, name: str, metadata: Mapping[str, str]) -> Iterator[None]:
        context = self._propagator.extract(dict(metadata))
        with self._tracer.start_as_current_span(name.lstrip("/"), context=context, kind=self._kind.SERVER):
            yield


class _FileExporter:
    """Writes spans as lines of JSON, which the local mesh reads for `--trace`."""

    def __init__(self, folder: Path, component: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._component = component
        self._file = open(folder / f"{component}.jsonl", "a", buffering=1)  # noqa: SIM115 - closed by shutdown

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

        for span in spans:
            self._file.write(json.dumps(self._plain(span)) + "\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        del timeout_millis  # every line is written at once
        return True

    def _plain(self, span: Any) -> dict[str, Any]:
        return {
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
            "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
            "name": span.name,
            "service": self._component,
            "start_ns": span.start_time,
            "end_ns": span.end_time,
            "attributes": dict(span.attributes or {}),
        }
