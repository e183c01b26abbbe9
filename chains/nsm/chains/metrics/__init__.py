"""A component's metrics for Prometheus, at ``/metrics``: `exporter` serves them, with the extra `prometheus`."""

from .config import PrometheusConfig, host_and_port
from .served import metrics

__all__ = ["PrometheusConfig", "host_and_port", "metrics"]
