"""The MutatingWebhookConfiguration: which objects the API server sends to which webhook.

Only objects with wires depend on the webhook. Match conditions select annotated objects, and a second entry the pods of
namespaces with the label: conditions cannot see a namespace's annotation, but selectors see its labels. So the
failurePolicy `Fail` of both blocks only objects that would be broken without their wires.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from .kinds import POD, WORKLOADS, Json, Kind
from .recipe import Recipe

ENTRIES = ("workloads", "pods-of-namespaces", "namespaces", "near-misses")
_DOMAIN = "webhook.networkservicemesh.io"
_TIMEOUT = 5
"""Seconds that the API server waits."""
_UNTOUCHED = ("kube-system", "kube-public", "kube-node-lease")
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_STAYS = "oldObject == null || !(has(oldObject.metadata) && has(oldObject.metadata.deletionTimestamp))"
"""Not being deleted: the garbage collector removes finalizers by updates, which must not be blocked."""

_HAS_NO_OWNER = "!(has(object.metadata) && has(object.metadata.ownerReferences))"
"""Written by a person: controllers that create objects from a template do not show warnings."""
_ALIKE = "(?i)net.*serv.*mesh|(^|[./_-])nsm([./_-]|$)"
_URL = "^ *(kernel|memif|vfio)://"
"""Similar keys, and values, of annotations that are examined, besides keys that contain the right one."""

_IS_NOBODYS = (
    "!(has(object.metadata) && has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(owner, "
    "owner.kind == 'Deployment' && has(owner.controller) && owner.controller))"
)
"""Not the ReplicaSet of a Deployment, which copies its annotations: changing it would prevent scaling."""


def configuration(
    name: str, service: str, namespace: str, recipe: Recipe, *, bundle: str = "", has_conditions: bool = True
) -> Json:
    """The configuration `name` for the server behind `service` in `namespace`.

    `bundle`: the authorities of its certificate, PEM; empty: another controller fills them in. If the API server has
    no match conditions (before Kubernetes 1.28), every pod is sent to the webhook, so its failures must be ignored.
    """
    others = {"key": _NAMESPACE_NAME, "operator": "NotIn", "values": [*_UNTOUCHED, namespace]}
    annotated = {"key": recipe.namespace_label, "operator": "In", "values": ["true"]}
    policy = "Fail" if has_conditions else "Ignore"
    rules = [_rule(kind) for kind in (POD, *WORKLOADS)]
    names = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"], "scope": "Cluster"}
    entries: list[Json] = [
        _entry(
            0,
            policy,
            rules,
            [others],
            {"asks-for-wires": _asks_for_wires(recipe), "stays": _STAYS, "is-nobodys": _IS_NOBODYS},
        ),
        _entry(1, policy, [_rule(POD)], [others, annotated], {"inherits": _inherits(recipe)}),
        _entry(
            2,
            "Ignore",
            [{**names, "operations": ["CREATE", "UPDATE"]}],
            [others],
            {"annotated": _has_traces(recipe), "stays": _STAYS},
        ),
        _entry(
            3,
            "Ignore",
            [*rules, {**names, "operations": ["CREATE", "UPDATE"]}],
            [others],
            {"is-like-it": _is_like_it(recipe), "stays": _STAYS, "has-no-owner": _HAS_NO_OWNER},
        ),
    ]
    for entry in entries:
        entry["clientConfig"] = {"service": {"name": service, "namespace": namespace, "path": "/mutate", "port": 443}}
        if bundle:
            entry["clientConfig"]["caBundle"] = base64.b64encode(bundle.encode()).decode()
        if not has_conditions:
            del entry["matchConditions"]
    if not has_conditions:
        del entries[3]  # the first one matches everything
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "networkservicemesh"}},
        "webhooks": entries,
    }


def bundle_of(item: Json) -> str:
    """The authorities in a configuration, PEM."""
    entries = item.get("webhooks") or [{}]
    return base64.b64decode(entries[0].get("clientConfig", {}).get("caBundle") or "").decode(errors="replace")


def _entry(number: int, policy: str, rules: Sequence[Json], selector: Sequence[Json], conditions: Json) -> Json:
    return {
        "name": f"{ENTRIES[number]}.{_DOMAIN}",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": policy,
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "timeoutSeconds": _TIMEOUT,
        "rules": list(rules),
        "namespaceSelector": {"matchExpressions": list(selector)},
        "matchConditions": [{"name": name, "expression": text} for name, text in conditions.items()],
    }


def _rule(kind: Kind) -> Json:
    return {
        "apiGroups": [kind.group],
        "apiVersions": ["v1"],
        "resources": [kind.resource],
        "operations": list(kind.operations),
        "scope": "Namespaced",
    }


def _asks_for_wires(recipe: Recipe) -> str:
    """Annotated itself or in its template, or annotated before this update, which then removes its clients."""
    return f"{_is_annotated('object', recipe)} || (oldObject != null && ({_is_annotated('oldObject', recipe)}))"


def _is_annotated(item: str, recipe: Recipe) -> str:
    templates = sorted({kind.template for kind in WORKLOADS}, key=len)
    places = [_has(f"{item}.{'.'.join(way)}", recipe.annotation, known=len(way)) for way in templates]
    return " || ".join([_has(item, recipe.annotation), *places])


def _is_like_it(recipe: Recipe) -> str:
    """An annotation, of the object or its template, that resembles the one for wires: its author is warned."""
    templates = sorted({kind.template for kind in WORKLOADS}, key=len)
    return " || ".join(_has_like_it(way, recipe) for way in (["object"], *(["object", *each] for each in templates)))


def _has_like_it(way: Sequence[str], recipe: Recipe) -> str:
    steps = [*way, "metadata", "annotations"]
    checks = [f"has({'.'.join(steps[: end + 1])})" for end in range(1, len(steps))]
    there = ".".join(steps)
    is_like_it = f"key.contains({recipe.annotation!r}) || key.matches({_ALIKE!r}) || {there}[key].matches({_URL!r})"
    is_other = f"key != {recipe.annotation!r} && key != {recipe.marker!r}"
    return f"({' && '.join(checks)} && {there}.exists(key, {is_other} && ({is_like_it})))"


def _inherits(recipe: Recipe) -> str:
    """Neither annotated itself nor created from an injected template."""
    return f"!{_has('object', recipe.annotation)} && !{_has('object', recipe.marker)}"


def _has_traces(recipe: Recipe) -> str:
    return f"{_has('object', recipe.annotation)} || {_has('object', recipe.namespace_label, field='labels')}"


def _has(path: str, key: str, *, known: int = 0, field: str = "annotations") -> str:
    """An expression of CEL: whether what is at `path` has `key`; the last `known` steps there may be missing."""
    way = path.split(".")
    steps = [*way, "metadata", field]
    checks = [f"has({'.'.join(steps[: end + 1])})" for end in range(len(way) - known, len(steps))]
    there = f"{key!r} in {'.'.join(steps)}"
    return f"({' && '.join([*checks, there])})"
