"""The variables for a component's metrics, with upstream's names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nsm.chains.config import Common, duration, flag, number, text, variable


def host_and_port(value: str) -> tuple[str, int]:
    """Host and port from `host:port`; without a host: all addresses. Raises ValueError."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= number(port) <= 65535:
        raise ValueError("expected host:port, such as :8081 or 127.0.0.1:8081")
    return host.strip("[]"), number(port)


@dataclass(frozen=True, kw_only=True)
class PrometheusConfig(Common):
    """Whether and where metrics are served, and who may read them."""

    prometheus: bool = variable("false", flag, "serve metrics for Prometheus at /metrics", env="PROMETHEUS")
    prometheus_metrics_prefix: str = variable(
        "", text, "prefix of the names of metrics", env="PROMETHEUS_METRICS_PREFIX"
    )
    prometheus_listen_on: tuple[str, int] = variable(":8081", host_and_port, "where to serve metrics")
    prometheus_cert_file: str = variable("", text, "certificate for TLS; empty: plain HTTP")
    prometheus_key_file: str = variable("", text, "key of that certificate")
    prometheus_ca_file: str = variable("", text, "authorities of clients that may read metrics; empty: anyone")
    prometheus_max_bind_threshold: float = variable("120s", duration, "longest pause between attempts to bind")

    def misfits(self) -> Iterator[str]:
        """Files that must be set together."""
        yield from super().misfits()
        if bool(self.prometheus_cert_file) != bool(self.prometheus_key_file):
            yield "NSM_PROMETHEUS_CERT_FILE and NSM_PROMETHEUS_KEY_FILE go together: set both or neither"
        if self.prometheus_ca_file and not self.prometheus_cert_file:
            yield "NSM_PROMETHEUS_CA_FILE needs a certificate of ours: set NSM_PROMETHEUS_CERT_FILE too"
