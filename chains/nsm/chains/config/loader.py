"""Loads configuration from the environment into a frozen object, and reports every fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nsm.chains.core import Limits

from .names import PREFIX, belongs_to_another, is_service_link, is_token_list, meant
from .parse import duration, exporter, flag, host_and_port, level, limits_from, octal, signed_duration, text, url

T = TypeVar("T")
_HINT = "; did you mean "


class ConfigError(Exception):
    """Variables have invalid or conflicting values; the text has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def variable(default: str, parse: Callable[[str], Any], about: str, *, env: str = "") -> Any:
    """A field that is read from the environment; `default` is in the form that a user would write."""
    meta = {"parse": parse, "about": about, "env": env, "default": default}
    return dataclasses.field(default_factory=lambda: parse(default), metadata=meta)


def not_yet(default: str, feature: str, *, env: str = "") -> Any:
    """A variable of upstream for a feature that is not supported: any value but its default is rejected."""

    def refuse(value: str) -> str:
        if value != default:
            raise ValueError(f"{feature} is not supported; leave it unset or at its default {default!r}")
        return value

    return variable(default, refuse, f"not supported: {feature}", env=env)


@dataclass(frozen=True, kw_only=True)
class Common:
    """The variables that every component reads."""

    log_level: str = variable("INFO", level, "TRACE, DEBUG, INFO, WARN or ERROR")
    max_token_lifetime: float = variable(
        "10m",
        signed_duration,
        "how long a token is valid; a negative value, such as -1m, tests who rejects it",
    )
    telemetry: bool = variable("false", flag, "send traces, metrics and logs over OTLP", env="TELEMETRY")
    open_telemetry_endpoint: str = variable(
        "otel-collector.observability.svc.cluster.local:4317", url, "the collector, OTLP over gRPC"
    )
    otlp_endpoint: str = variable("", text, "a collector, OTLP over HTTP", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    otel_metrics_exporter: str = variable(
        "", exporter, "whether metrics are sent: otlp or none; empty: with TELEMETRY=true", env="OTEL_METRICS_EXPORTER"
    )
    otel_logs_exporter: str = variable(
        "", exporter, "whether logs are sent, too: otlp or none; empty: none", env="OTEL_LOGS_EXPORTER"
    )
    metrics_export_interval: float = variable("10s", duration, "how often metrics are sent to that collector")
    pprof_enabled: str = not_yet("false", "pprof (a profiler of Go programs)")
    pprof_listen_on: str = not_yet("localhost:6060", "pprof (a profiler of Go programs)")
    socket_mode: int = variable("0660", octal, "file mode of unix sockets")
    socket_group: str = variable("", text, "group of unix sockets; empty: the group of the process")
    workload_api: str = variable(
        "unix:///run/spire/sockets/agent.sock", text, "the SPIFFE Workload API", env="SPIFFE_ENDPOINT_SOCKET"
    )
    prometheus: bool = variable("false", flag, "serve metrics for Prometheus at /metrics", env="PROMETHEUS")
    prometheus_metrics_prefix: str = variable(
        "", text, "prefix of the names of metrics", env="PROMETHEUS_METRICS_PREFIX"
    )
    prometheus_listen_on: tuple[str, int] = variable(":8081", host_and_port, "where to serve metrics")
    prometheus_cert_file: str = variable("", text, "certificate for TLS; empty: plain HTTP")
    prometheus_key_file: str = variable("", text, "key of that certificate")
    prometheus_ca_file: str = variable("", text, "authorities of clients that may read metrics; empty: anyone")
    prometheus_max_bind_threshold: float = variable("120s", duration, "longest pause between attempts to bind")
    limits: Limits = variable(  # noqa: RUF009 - a field, as the others
        "", limits_from, "limits to change, name:value,..; docs/configuration.md lists them"
    )
    node_name: str = variable("", text, "label nodeName", env="NODE_NAME")
    pod_name: str = variable("", text, "label podName", env="POD_NAME")
    cluster_name: str = variable("", text, "label clusterName", env="CLUSTER_NAME")

    @property
    def sends_figures(self) -> bool:
        """Whether metrics are sent to a collector."""
        return (self.otel_metrics_exporter or ("otlp" if self.telemetry else "none")) == "otlp"

    @property
    def sends_lines(self) -> bool:
        """Whether logs are sent to a collector."""
        return self.otel_logs_exporter == "otlp"

    @property
    def _has_collector(self) -> bool:
        return self.telemetry or self.otlp_endpoint.startswith(("http://", "https://"))

    def misfits(self) -> Iterator[str]:
        """Conflicts between values that are valid by themselves, a line each; overrides yield their parent's first."""
        if "otlp" in {self.otel_metrics_exporter, self.otel_logs_exporter} and not self._has_collector:
            yield (
                "OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER need a collector: set TELEMETRY=true and "
                "NSM_OPEN_TELEMETRY_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT=http://host:4318"
            )
        if not self.metrics_export_interval:
            yield "NSM_METRICS_EXPORT_INTERVAL must be longer than 0"
        if bool(self.prometheus_cert_file) != bool(self.prometheus_key_file):
            yield "NSM_PROMETHEUS_CERT_FILE and NSM_PROMETHEUS_KEY_FILE go together: set both or neither"
        if self.prometheus_ca_file and not self.prometheus_cert_file:
            yield "NSM_PROMETHEUS_CA_FILE needs a certificate of ours: set NSM_PROMETHEUS_CERT_FILE too"


C = TypeVar("C", bound=Common)


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """The configuration, and a warning for each `NSM_*` variable that this component does not read."""

    config: C
    warnings: tuple[str, ...]


def load(kind: type[C], environ: Mapping[str, str]) -> Loaded[C]:
    """Read `kind` from `environ`. Raises `ConfigError` with a line for each invalid value, or each conflict.

    A required variable is one whose default is invalid.
    """
    values, faults, known = {}, [], set()
    for field in dataclasses.fields(kind):
        name = field.metadata["env"] or PREFIX + field.name.upper()
        known.add(name)
        value = environ.get(name, field.metadata["default"])
        if is_service_link(name, value):
            value = field.metadata["default"]
        try:
            values[field.name] = field.metadata["parse"](value)
        except ValueError as error:
            faults.append(f"{name}={value!r}: {error}")
    unknown = tuple(_unknown(environ, known))
    misspelt = [warning for warning in unknown if _HINT in warning]
    if faults:
        raise ConfigError([*faults, *misspelt])
    config = kind(**values)
    if misfits := list(config.misfits()):
        raise ConfigError([*misfits, *misspelt])
    return Loaded(config, unknown)


def _unknown(environ: Mapping[str, str], known: set[str]) -> Iterator[str]:
    """A warning for each unknown `NSM_*` variable, except those that Kubernetes sets for Services."""
    for name in sorted(set(environ) - known):
        if not name.upper().startswith(PREFIX) or is_service_link(name, environ[name]) or is_token_list(name):
            continue
        if (near := meant(name, known)) is not None:
            yield f"{name} is not a variable of this component{_HINT}{near}?"
        elif belongs_to_another(name):
            yield f"{name} is a variable of other components and has no effect on this one"
        else:
            yield f"{name} is not a variable of this component"


def describe(kind: type[Common]) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each variable of `kind`: for help texts and the documentation."""
    rows = []
    for field in dataclasses.fields(kind):
        meta = field.metadata
        rows.append((meta["env"] or PREFIX + field.name.upper(), meta["default"], meta["about"]))
    return rows
