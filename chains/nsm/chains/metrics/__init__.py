"""Metrics of a component for Prometheus, at ``/metrics``: `exporter` serves them, with the extra `prometheus`."""

from .config import PrometheusConfig
from .served import metrics

__all__ = ["PrometheusConfig", "metrics"]
