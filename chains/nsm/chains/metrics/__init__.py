"""Metrics of a component for Prometheus, at ``/metrics``: `exporter` serves them, with the extra `prometheus`."""

from .config import PrometheusConfig, listen_on
from .served import metrics

__all__ = ["PrometheusConfig", "listen_on", "metrics"]
