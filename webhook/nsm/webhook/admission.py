"""From an AdmissionReview to its answer (admission.k8s.io/v1)."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import replace
from typing import Any, Protocol

from nsm.chains.logs import log

from .counters import CHANGED, REFUSED, UNDECIDED, Admissions
from .counters import UNTOUCHED as LEFT
from .decision import (
    UNTOUCHED,
    Namespace,
    Question,
    Verdict,
    decide,
    decide_namespace,
    is_annotated_itself,
    kind_in,
    near_misses,
)
from .kinds import Json, kind_of, mapping, name_of, shortened
from .recipe import Recipe

_API = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A valid namespace name: it becomes part of a URL."""

_LONGEST_WORD = 253
_LONGEST_REFUSAL = 2000


class Namespaces(Protocol):
    """Looks up namespaces. Methods raise `MeshError` if the API server cannot be queried."""

    async def get(self, name: str) -> Namespace:
        """A namespace, as last seen."""

    async def ask(self, name: str) -> Namespace:
        """A namespace, queried now."""


class Admission:
    """Answers and counts the API server's reviews."""

    def __init__(self, recipe: Recipe, namespaces: Namespaces) -> None:
        self._recipe, self._namespaces = recipe, namespaces
        self.counts = Admissions()

    async def review(self, document: Any) -> Json:
        """The answer to a review.

        Raises ValueError if `document` is not a review, and `MeshError` if the API server cannot be queried about the
        namespace; then the configuration's failurePolicy decides.
        """
        begin = time.perf_counter()
        question, result = _question(document), UNDECIDED
        try:
            verdict = await self._verdict(question)
            if near := near_misses(question, self._recipe):
                verdict = replace(verdict, warnings=(*verdict.warnings, *near))
            answer = {**_API, "response": _response(question.uid, verdict)}
            result = _result(verdict)
        finally:
            self.counts.count(question.group, question.kind, result, time.perf_counter() - begin)
        _tell(question, verdict)
        return answer

    async def _verdict(self, question: Question) -> Verdict:
        if (question.group, question.kind) == ("", "Namespace"):
            return decide_namespace(question, self._recipe)
        if (kind := kind_in(question)) is None:
            return UNTOUCHED
        speaks_for_itself = is_annotated_itself(question, kind, self._recipe)
        if not kind.is_pod and not speaks_for_itself:
            return UNTOUCHED  # only pods inherit from their namespace
        namespace = await self._namespaces.get(question.namespace)
        if not speaks_for_itself and self._recipe.annotation not in namespace.annotations:
            namespace = await self._namespaces.ask(question.namespace)  # it may have been annotated just now
        return decide(question, kind, namespace, self._recipe)


def _question(document: Any) -> Question:
    if not isinstance(document, dict) or {key: document.get(key) for key in _API} != _API:
        raise ValueError("expected an AdmissionReview of admission.k8s.io/v1")
    request = mapping(document, "request")
    kind = mapping(request, "kind")
    uid, name = _text(request, "uid"), _text(kind, "kind")
    if not uid or not name:
        raise ValueError("the AdmissionReview has no request with a uid and a kind")
    group, namespace = _text(kind, "group"), _text(request, "namespace")
    if kind_of(group, name) is not None and not _NAMESPACE.fullmatch(namespace):
        raise ValueError("the AdmissionReview does not name its object's namespace")
    return Question(
        uid=uid,
        operation=_text(request, "operation"),
        group=group,
        kind=name,
        namespace=namespace,
        item=mapping(request, "object"),
        is_going=bool(mapping(mapping(request, "oldObject"), "metadata").get("deletionTimestamp")),
    )


def _text(item: Json, key: str) -> str:
    """A text from the API server that may be logged; empty if it is invalid."""
    value = item.get(key)
    return value if isinstance(value, str) and len(value) <= _LONGEST_WORD and value.isprintable() else ""


def _response(uid: str, verdict: Verdict) -> Json:
    response: Json = {"uid": uid, "allowed": not verdict.refusal}
    if verdict.refusal:
        status = {"status": "Failure", "reason": "Invalid", "code": 422}
        response["status"] = {**status, "message": shortened(verdict.refusal, _LONGEST_REFUSAL)}
    if verdict.patch:
        patch = json.dumps(verdict.patch, separators=(",", ":"), allow_nan=False).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    if verdict.warnings:
        response["warnings"] = [shortened(each, _LONGEST_REFUSAL) for each in verdict.warnings]
    return response


def _result(verdict: Verdict) -> str:
    return REFUSED if verdict.refusal else CHANGED if verdict.patch else LEFT


def _tell(question: Question, verdict: Verdict) -> None:
    what = {
        "kind": question.kind,
        "namespace": question.namespace,
        "name": name_of(question.item),
        "operation": question.operation,
    }
    for warning in verdict.warnings:
        log.info("warned", **what, warning=shortened(warning, _LONGEST_REFUSAL))
    if verdict.refusal:
        log.warning("refused", **what, reason=shortened(verdict.refusal, _LONGEST_REFUSAL))
    elif verdict.patch:
        log.info("changed", **what)
    else:
        log.debug("untouched", **what)
