"""Prepares a pod so that an unprivileged client can resolve names of its wires, and check them by pings.

The client serves DNS at port 53 of the pod, and changes resolv.conf. Only root may write the kubelet's file and bind
that port. So the pod's containers mount a copy instead, from a volume that the client may write to, and which it
creates before they start; and ports from 53 on are unprivileged in the pod, by one of the sysctls
that the Pod Security Standards allow at every level. So are pings, by another one, which some container runtimes do not
set by themselves; forwarders set it only if they may write to /proc/sys.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .kinds import Json, listing, mapping

_KUBELETS, _COPY = "/etc/resolv.conf", "resolv.conf"
_SYSCTLS: tuple[Json, ...] = (
    {"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"},
    {"name": "net.ipv4.ping_group_range", "value": "0 65535"},  # all groups that a pod in a user namespace has
)


def variables(folder: str) -> list[Json]:
    """The variables of clients that have the volume at `folder`."""
    named = {"NSM_RESOLV_CONF_FROM": _KUBELETS, "NSM_RESOLV_CONF_PATH": f"{folder}/{_COPY}"}
    return [{"name": name, "value": value} for name, value in named.items()]


def with_names(spec: Json, volume: str, *, clients: Collection[str], lists: Collection[str]) -> Json:
    """`spec` with the copy in `volume` for all containers of `lists` but `clients`.

    A container with its own resolv.conf keeps it, and a pod that sets one of the sysctls keeps its value.
    """
    mount = _mount(volume)
    given = {
        key: [each if each.get("name") in clients or _has_own(each) else _mounted(each, mount) for each in there]
        for key in lists
        if (there := listing(spec, key))
    }
    context = mapping(spec, "securityContext")
    sysctls = listing(context, "sysctls")
    own = {each.get("name") for each in sysctls}
    if not (missing := [each for each in _SYSCTLS if each["name"] not in own]):
        return {**spec, **given}
    return {**spec, **given, "securityContext": {**context, "sysctls": [*sysctls, *missing]}}


def without_names(spec: Json, volume: str, lists: Collection[str]) -> Json:
    """`spec` without the changes of `with_names`."""
    mount, found = _mount(volume), dict(spec)
    was_there = False
    for key in lists:
        there = listing(spec, key)
        bare = [_without(each, "volumeMounts", mount) for each in there]
        if bare != there:
            was_there, found[key] = True, bare
    if was_there and (context := mapping(spec, "securityContext")):
        for each in _SYSCTLS:
            context = _without(context, "sysctls", each)
        _put(found, "securityContext", context)
    return found


def _mount(volume: str) -> Json:
    return {"name": volume, "mountPath": _KUBELETS, "subPath": _COPY}


def _mounted(container: Json, mount: Json) -> Json:
    return {**container, "volumeMounts": [*listing(container, "volumeMounts"), mount]}


def _has_own(container: Json) -> bool:
    return any(each.get("mountPath") == _KUBELETS for each in listing(container, "volumeMounts"))


def _without(item: Json, key: str, what: Json) -> Json:
    found = dict(item)
    if key in item:
        _put(found, key, [each for each in listing(item, key) if each != what])
    return found


def _put(item: dict[str, Any], key: str, value: Any) -> None:
    if value:
        item[key] = value
    else:
        item.pop(key, None)
