"""Metrics of a component for Prometheus, at ``/metrics``: `exporter` serves them, with the extra `prometheus`."""

from .config import PrometheusConfig

__all__ = ["PrometheusConfig"]
