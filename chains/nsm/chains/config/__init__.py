"""Configuration: one frozen object per service, read from `NSM_*` once and validated before a socket opens.

    @dataclass(frozen=True, kw_only=True)
    class NsmgrConfig(Common):
        name: str = variable("nsmgr", text, "the segment name of this manager")
        dial_timeout: float = variable("750ms", duration, "how long a dial may take")

    config = load(NsmgrConfig, os.environ)

The variable of a field is ``NSM_`` and the field's name in upper case, unless `env=` names another. All faults are
reported at once, each with the variable, its value and what to write instead.
"""

from .loader import Common, ConfigError, Loaded, load, not_yet, variable
from .parse import (
    address_groups,
    duration,
    flag,
    host_and_port,
    items,
    level,
    limits_from,
    number,
    octal,
    pairs,
    text,
    url,
    urls,
)

__all__ = [
    "Common",
    "ConfigError",
    "Loaded",
    "address_groups",
    "duration",
    "flag",
    "host_and_port",
    "items",
    "level",
    "limits_from",
    "load",
    "not_yet",
    "number",
    "octal",
    "pairs",
    "text",
    "url",
    "urls",
    "variable",
]
