"""SR-IOV tokens, which entitle a pod to a virtual function, and which the kubelet puts into its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

TOKEN_LABEL, DOMAIN_LABEL = "sriovToken", "serviceDomain"
"""A client asks by the first, whose value is `SERVICE-DOMAIN/CAPABILITY`; endpoints see the second."""
TOKEN_PREFIX = "sriov-"  # noqa: S105 - a name
VARIABLE = "NSM_SRIOV_TOKENS_"
"""Begins the name of a variable that holds ids, comma separated; the name of the tokens follows."""
_TOKEN = re.compile(TOKEN_PREFIX + "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_token(text: str) -> bool:
    """Whether this is the id of a token."""
    return bool(_TOKEN.fullmatch(text))


def seen_by_others(labels: Mapping[str, str]) -> dict[str, str]:
    """A client's labels as components on its path see them: the service domain in the place of the token's name."""
    others = {key: value for key, value in labels.items() if key != TOKEN_LABEL}
    if TOKEN_LABEL in labels:
        others.setdefault(DOMAIN_LABEL, labels[TOKEN_LABEL].partition("/")[0])
    return others


def tokens_in(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The ids of tokens by name. Raises ValueError for what is not a list of ids."""
    found = {}
    for variable, value in environment.items():
        if variable.startswith(VARIABLE):
            ids = tuple(filter(None, value.split(",")))
            if wrong := [each for each in ids if not is_token(each)]:
                raise ValueError(f"{variable}={value!r}: {wrong[0]!r} is not the id of a token")
            found[variable.removeprefix(VARIABLE)] = ids
    return found
