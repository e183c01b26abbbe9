"""The namespaces of the cluster: an up-to-date index, and the label of annotated ones."""

from __future__ import annotations

import asyncio

from nsm.chains.core import MeshError, Tasks
from nsm.chains.logs import log
from nsm.kube import NAMESPACES, Api, Object, ObjectMissing, Reflector, Rejected

from .decision import Namespace, namespace_labels
from .kinds import annotations_of, labels_of, name_of
from .recipe import Recipe

_AGAIN = 30.0
"""Seconds until setting a label is retried, for an unreachable API server or a missing permission."""
_LACKS = "a namespace has the annotation but not the label: its pods get no wires"
_HAS = "a namespace has the label but not the annotation: its pods depend on the webhook"


class NamespaceIndex:
    """Looks up namespaces, in the watch's cache if possible."""

    def __init__(self, api: Api, seen: Reflector) -> None:
        self._api, self._seen = api, seen

    async def get(self, name: str) -> Namespace:
        """The namespace as last seen; queried if it is not known yet."""
        found = self._seen.objects.get(("", name))
        return await self.ask(name) if found is None else _namespace(found)

    async def ask(self, name: str) -> Namespace:
        """The namespace, queried now. Raises `MeshError` if the API server cannot be queried."""
        return _namespace(await self._api.get(NAMESPACES, name))


async def keep_labels(api: Api, seen: Reflector, recipe: Recipe) -> None:
    """Keep the label of annotated namespaces correct, forever.

    The webhook also sets it in reviews of namespaces; this corrects those that it did not see.
    """
    failed: dict[str, str] = {}
    async with Tasks("namespace labels") as tasks:
        tasks.spawn(_try_again(api, seen, recipe, failed), name="namespace labels that failed")
        async for change in seen.changes():
            if change.now is not None:
                await _keep_label(api, change.now, recipe, failed)


async def _try_again(api: Api, seen: Reflector, recipe: Recipe, failed: dict[str, str]) -> None:
    while True:
        await asyncio.sleep(_AGAIN)
        for name in tuple(failed):
            found = seen.objects.get(("", name))
            if found is None:
                failed.pop(name, None)
            else:
                await _keep_label(api, found, recipe, failed)


async def _keep_label(api: Api, item: Object, recipe: Recipe, failed: dict[str, str]) -> None:
    """Correct the label; `failed` has the errors, by name, of namespaces to retry later."""
    name, patch = name_of(item), _patch(item, recipe)
    before = failed.pop(name, "")
    if patch is None:
        return
    try:
        await api.patch(NAMESPACES, name, patch)
    except ObjectMissing:
        return  # it was deleted meanwhile
    except MeshError as error:
        if not isinstance(error, Rejected):  # otherwise a person must change the namespace
            failed[name] = str(error)
        if str(error) != before:
            log.error(_LACKS if _is_annotated(item, recipe) else _HAS, namespace=name, error=str(error))
    else:
        log.info("namespace labelled", namespace=name, labels=patch["metadata"]["labels"])


def _patch(item: Object, recipe: Recipe) -> Object | None:
    """A merge patch that makes the label match the annotation; None if it does."""
    before = labels_of(item)
    after = namespace_labels(before, recipe, is_annotated=_is_annotated(item, recipe))
    return (
        None
        if before == after
        else {"metadata": {"labels": {recipe.namespace_label: after.get(recipe.namespace_label)}}}
    )


def _is_annotated(item: Object, recipe: Recipe) -> bool:
    return bool(str(annotations_of(item).get(recipe.annotation) or "").strip())


def _namespace(item: Object) -> Namespace:
    return Namespace(name_of(item), annotations_of(item), labels_of(item))
