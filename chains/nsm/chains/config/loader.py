"""Loads configuration from the environment into a frozen object, and reports every fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nsm.chains.core import Limits

from .names import PREFIX, belongs_to_another, is_service_link, is_token_list, meant
from .parse import flag, level, limits_from, octal, signed_duration, text

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
    telemetry: bool = variable("false", flag, "export traces over OTLP", env="TELEMETRY")
    open_telemetry_endpoint: str = variable(
        "otel-collector.observability.svc.cluster.local:4317", text, "collector of traces, OTLP over gRPC"
    )
    otlp_endpoint: str = variable("", text, "collector of traces, OTLP over HTTP", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    metrics_export_interval: str = not_yet("10s", "export of metrics")
    pprof_enabled: str = not_yet("false", "pprof (a profiler of Go programs)")
    pprof_listen_on: str = not_yet("localhost:6060", "pprof (a profiler of Go programs)")
    socket_mode: int = variable("0660", octal, "file mode of unix sockets")
    socket_group: str = variable("", text, "group of unix sockets; empty: the group of the process")
    workload_api: str = variable(
        "unix:///run/spire/sockets/agent.sock", text, "the SPIFFE Workload API", env="SPIFFE_ENDPOINT_SOCKET"
    )
    limits: Limits = variable(  # noqa: RUF009 - a field, as the others
        "", limits_from, "limits to change, name:value,..; docs/configuration.md lists them"
    )
    node_name: str = variable("", text, "label nodeName", env="NODE_NAME")
    pod_name: str = variable("", text, "label podName", env="POD_NAME")
    cluster_name: str = variable("", text, "label clusterName", env="CLUSTER_NAME")

    def misfits(self) -> Iterator[str]:
        """Conflicts between values that are valid by themselves, a line each; overrides yield their parent's first."""
        return iter(())


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
