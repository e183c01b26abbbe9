"""Sends spans, metrics and logs to an OpenTelemetry collector (OTLP, over HTTP or gRPC)."""
