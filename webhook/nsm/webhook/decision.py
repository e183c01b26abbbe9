"""The decision on a created or changed object: a pure function of the object and its namespace."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from nsm.chains.reading import nearest

from . import annotation
from .injection import carries, inject, marked, withdraw
from .jsonpatch import difference
from .kinds import CREATE, UPDATE, Json, Kind, annotations_of, is_controlled_by, kind_of, labels_of, mapping, name_of
from .podsecurity import level_of
from .recipe import Recipe

_MIRROR = "kubernetes.io/config.mirror"
"""Marks a mirror pod, which a node runs from a local file: changing it has no effect."""
_SCHEMES = tuple(f"{each.lower()}://" for each in sorted(annotation.MECHANISMS))
_ALIKE, _LONGEST_KEY = 0.85, 317
_UNIQUE = uuid.UUID("6f1d2c54-5b0e-4f57-9a1e-2d0a5a5b8f3c")
"""The UUID namespace for client names derived from workloads."""


@dataclass(frozen=True)
class Question:
    """The object of a review."""

    uid: str
    operation: str
    group: str
    kind: str
    namespace: str
    item: Json
    """The object as it would be stored."""
    is_going: bool = False
    """Whether it was deleted and waits for its finalizers, whose removal must not be blocked."""


@dataclass(frozen=True)
class Namespace:
    """The relevant properties of a namespace."""

    name: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """The result: changes, or a refusal; `warnings` are shown to the user of the API server."""

    patch: tuple[Json, ...] = ()
    refusal: str = ""
    warnings: tuple[str, ...] = ()


UNTOUCHED = Verdict()


def kind_in(question: Question) -> Kind | None:
    """The kind to inject into, None if there is nothing to inject."""
    kind = kind_of(question.group, question.kind)
    if kind is None or question.operation not in kind.operations or question.is_going:
        return None
    if is_controlled_by(question.item, "Deployment"):
        return None  # the Deployment would replace a ReplicaSet that differs from its template
    return None if _MIRROR in annotations_of(question.item) else kind


def is_annotated_itself(question: Question, kind: Kind, recipe: Recipe) -> bool:
    """Whether the object has, or had, the annotation itself; otherwise its namespace's counts."""
    places = (question.item, kind.template_of(question.item))
    return any(key in annotations_of(place) for place in places for key in (recipe.annotation, recipe.marker))


def decide(question: Question, kind: Kind, namespace: Namespace, recipe: Recipe) -> Verdict:
    """Inject the requested clients, or refuse an invalid request."""
    template = kind.template_of(question.item)
    try:
        if kind.is_pod:
            return _decide_pod(question, template, namespace, recipe)
        return _decide_workload(question, kind, template, namespace, recipe)
    except _Refusal as refusal:
        return Verdict(refusal=str(refusal))


def decide_namespace(question: Question, recipe: Recipe) -> Verdict:
    """Set the label of annotated namespaces; refuse an invalid annotation at once."""
    if question.operation not in {CREATE, UPDATE} or question.is_going:
        return UNTOUCHED
    try:
        asked = _read(question.item, recipe, "Namespace", name_of(question.item))
    except _Refusal as refusal:
        return Verdict(refusal=str(refusal))
    metadata, before = mapping(question.item, "metadata"), labels_of(question.item)
    after = namespace_labels(before, recipe, is_annotated=asked is not None)
    return (
        UNTOUCHED
        if before == after
        else Verdict(tuple(difference(metadata, {**metadata, "labels": after}, ["metadata"])))
    )


def namespace_labels(labels: Mapping[str, str], recipe: Recipe, *, is_annotated: bool) -> Json:
    """`labels`, with or without the label for annotated namespaces."""
    others = {key: value for key, value in labels.items() if key != recipe.namespace_label}
    return {**others, recipe.namespace_label: "true"} if is_annotated else others


def near_misses(question: Question, recipe: Recipe) -> tuple[str, ...]:
    """A sentence for each annotation that seems to request wires, but has the wrong key."""
    if question.operation not in {CREATE, UPDATE} or question.is_going:
        return ()
    kind = kind_in(question)
    places = {question.kind: question.item}
    if kind is not None and not kind.is_pod:
        places[f"the pod template of {question.kind}"] = kind.template_of(question.item)
    elif kind is None and (question.group, question.kind) != ("", "Namespace"):
        return ()
    name = name_of(question.item) if kind is None else f"{question.namespace}/{name_of(question.item)}"
    return tuple(
        f"annotation {key!r:.300} of {where} {name} is ignored; expected {recipe.annotation!r}{_former(key, recipe)}"
        for where, item in places.items()
        for key, value in annotations_of(item).items()
        if is_near_miss(key, value, recipe)
    )


def is_near_miss(key: object, value: object, recipe: Recipe) -> bool:
    """Whether an annotation resembles the one for wires by its key or its value, but is not that one."""
    if not isinstance(key, str) or key in {recipe.annotation, recipe.marker}:
        return False
    if isinstance(value, str) and value.lstrip().startswith(_SCHEMES):
        return True
    return recipe.annotation in key or nearest(key[:_LONGEST_KEY], [recipe.annotation], alike=_ALIKE) is not None


def _former(key: str, recipe: Recipe) -> str:
    return " (the key before NSM 1.0)" if key == f"ns.{recipe.annotation}" else ""


class _Refusal(Exception):
    """Why an object is refused, as one sentence."""


def _decide_pod(question: Question, pod: Json, namespace: Namespace, recipe: Recipe) -> Verdict:
    name = f"$(POD_NAME)-{uuid.uuid4()}"
    if mapping(pod, "metadata").get("generateName"):
        name = "$(POD_NAME)"
    if recipe.annotation in annotations_of(pod):
        asked = _read(pod, recipe, "Pod", f"{question.namespace}/{name_of(pod)}")
        if asked is None:
            # empty: the pod opts out of its namespace's wires, and of an earlier injection
            return Verdict(tuple(difference(pod, withdraw(pod, recipe)))) if marked(pod, recipe) else UNTOUCHED
        if obstacle := _obstacle(pod):
            raise _Refusal(f"Pod {question.namespace}/{name_of(pod)} {obstacle}")
        return _injected(question, (), pod, asked, namespace, recipe, name)
    if marked(pod, recipe):
        return UNTOUCHED  # created from an injected template
    asked = _read_of_namespace(namespace, recipe)
    if asked is not None and (obstacle := _obstacle(pod)):
        return Verdict(warnings=(f"this Pod {obstacle}; it gets no wires from its namespace",))
    return _injected(question, (), pod, asked, namespace, recipe, name) if asked else UNTOUCHED


def _decide_workload(question: Question, kind: Kind, template: Json, namespace: Namespace, recipe: Recipe) -> Verdict:
    full_name = f"{question.namespace}/{name_of(question.item)}"
    is_in_template = recipe.annotation in annotations_of(template)
    if is_in_template:
        asked = _read(template, recipe, f"the pod template of {kind.name}", full_name)
    else:
        asked = _read(question.item, recipe, kind.name, full_name)
    if asked is None:
        if is_in_template:
            return UNTOUCHED
        bare = withdraw(template, recipe) if marked(template, recipe) else template
        return Verdict(tuple(difference(template, bare, kind.template)))
    if obstacle := _obstacle(template):
        raise _Refusal(f"a Pod of {kind.name} {full_name} {obstacle}")
    unique = mapping(question.item, "metadata").get("name")
    name = f"$(POD_NAME)-{uuid.uuid5(_UNIQUE, f'{kind.name}/{full_name}')}" if unique else "$(POD_NAME)"
    injected = _injected(question, kind.template, template, asked, namespace, recipe, name)
    return UNTOUCHED if is_in_template else injected  # its pods have the annotation


def _injected(
    question: Question,
    way: tuple[str, ...],
    template: Json,
    asked: annotation.Asked,
    namespace: Namespace,
    recipe: Recipe,
    name: str,
) -> Verdict:
    if not mapping(template, "spec") or carries(template, asked.value, recipe):
        return UNTOUCHED  # the API server rejects an object without spec
    try:
        after = inject(template, asked, recipe, level_of(namespace.labels), name)
    except ValueError as error:
        raise _Refusal(f"{question.kind} {question.namespace}/{name_of(question.item)}: {error}") from None
    return Verdict(tuple(difference(template, after, way)))


def _read(item: Json, recipe: Recipe, kind: str, name: str) -> annotation.Asked | None:
    return _parse(annotations_of(item).get(recipe.annotation), recipe, kind, name)


def _read_of_namespace(namespace: Namespace, recipe: Recipe) -> annotation.Asked | None:
    return _parse(namespace.annotations.get(recipe.annotation), recipe, "Namespace", namespace.name)


def _parse(value: object, recipe: Recipe, kind: str, name: str) -> annotation.Asked | None:
    try:
        return annotation.read(str(value or ""), recipe.served)
    except ValueError as error:
        raise _Refusal(f"annotation {recipe.annotation} of {kind} {name}: {error}") from None


def _obstacle(pod: Json) -> str:
    """Why a pod, or those of a template, can have no wires; empty if they can."""
    spec = mapping(pod, "spec")
    if spec.get("hostNetwork"):
        return "uses the network of its node (hostNetwork), where a wire would belong to the node"
    if mapping(spec, "os").get("name") == "windows":
        return "is for Windows (os), which clients do not support"
    return ""
