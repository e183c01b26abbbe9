"""Unknown variable names: which component they belong to, and which variable was meant."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files

from nsm.chains.reading import nearest

PREFIX = "NSM_"


def _named(text: str) -> tuple[str, ...]:
    return tuple(f"{PREFIX}{name}" for name in text.split())


_UPSTREAM = frozenset(
    _named("""
        BRIDGE_NAME CGROUP_PATH CLIENT_PREFIX_LEN CONFIGMAP_NAME CSI_SOCKET_PATH
        DEVICE_PLUGIN_PATH DNS_TEMPLATES FILE_NAME FROM_CONFIG_MAP IP L2_RESOURCE_SELECTOR_FILE MAP_IP_FILE_PATH
        NODE_NAME OUTPUT_PATH PCI_DEVICES_PATH PCI_DRIVERS_PATH PLUGIN_NAME POD_IP POD_NAME
        POD_RESOURCES_PATH POINT2POINT PORT PREFIX PREFIX_SERVER_URL PROTOCOL REGISTRY_PROXY_URL REQUEST_LABELS
        RESOURCE_POLL_TIMEOUT RULES_CONFIG_PATH SELECTOR SRIOV_CONFIG_FILE TARGET_PORT VERSION VFIO_PATH
        VPP_API_SOCKET VPP_INIT VPP_INIT_PARAMS VPP_MIN_OPERATION_TIMEOUT
    """)
)
"""Variables of upstream's components that no component here has."""
_UPSTREAM_BEGIN = f"{PREFIX}SRIOV_TOKENS_"

_MEANINGS = (
    _named("SERVICE_NAMES NETWORK_SERVICES SERVICES SERVICE_NAME NETWORK_SERVICE NETWORK_SERVICE_NAMES SERVICE"),
    _named("CIDR_PREFIX CIDR_PREFIXES CIDR PREFIX PREFIXES"),
    _named("CONNECT_TO REGISTRY_URL NSMGR_URL MANAGER_URL"),
    _named("LISTEN_ON LISTEN LISTEN_URL"),
    _named("EXCLUDED_PREFIXES_FILE EXCLUDED_PREFIXES"),
)
"""Names with the same meaning in different components; the first one that a component has is the one meant."""

_LINK = re.compile(
    r"NSM_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_VALUE = re.compile(r"(?:tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+:[0-9]+")
_ALIKE = 0.8


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set this variable for a Service in the pod's namespace whose name begins with ``nsm-``.

    For a Service called `nsm-vxlan` it sets NSM_VXLAN_PORT=tcp://10.96.7.7:4789.
    """
    return bool(_LINK.fullmatch(name)) or (name.endswith("_PORT") and bool(_LINK_VALUE.fullmatch(value)))


def meant(name: str, known: Collection[str]) -> str | None:
    """The variable of `known` that `name` was meant to be; None if that is not clear."""
    for same in _MEANINGS:
        if name in same and (found := next((each for each in same if each in known), None)) is not None:
            return found
    return nearest(name, known, alike=_ALIKE)


def belongs_to_upstream(name: str) -> bool:
    """Whether this name is a variable of an upstream component, but of no component here."""
    return name in _UPSTREAM or name.startswith(_UPSTREAM_BEGIN)


def belongs_to_another(name: str) -> bool:
    """Whether any component has a variable of this name, here or upstream."""
    return belongs_to_upstream(name) or any(name in names for names in variables_by_component().values())


@cache
def variables_by_component() -> Mapping[str, frozenset[str]]:
    """The variables of each component, by its command; `make docs` generates them from the components' code."""
    text = (files(__package__) / "variables.json").read_text()
    return {command: frozenset(names) for command, names in json.loads(text).items()}


def fault_of(name: str, component: str) -> str | None:
    """Why the variable `name` makes no sense for this component; None if it does.

    A variable of upstream is accepted: it may remain in a manifest that was written for upstream's component.
    """
    known = variables_by_component()[component]
    if name in known or belongs_to_upstream(name) or not name.upper().startswith(PREFIX):
        return None
    near = meant(name, known)
    hint = f"did you mean {near}?" if near is not None else f"`nsm {component} --help` lists its variables"
    return f"{name} is not a variable of nsm {component}; {hint}"
