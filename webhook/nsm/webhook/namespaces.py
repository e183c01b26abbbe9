"""The namespaces of the cluster: an index that is kept up to date, and the label that says which are annotated."""

from __future__ import annotations

import asyncio

from nsm.chains.core import MeshError, Tasks
from nsm.chains.logs import log
from nsm.kube import NAMESPACES, Api, Object, ObjectMissing, Reflector, Rejected

from .decision import Namespace, namespace_labels
from .kinds import annotations_of, labels_of, name_of
from .recipe import Recipe

_AGAIN = 30.0
"""Seconds after which a label that could not be set is tried again: the API server is back, a permission granted."""
_LACKS = "a namespace has the annotation and not the label: its pods get no wires"
_HAS = "a namespace has the label and not the annotation: its pods wait for the webhook"


class NamespaceIndex:
    """What is known of namespaces, without asking where it was seen."""

    def __init__(self, api: Api, seen: Reflector) -> None:
        self._api, self._seen = api, seen

    async def get(self, name: str) -> Namespace:
        """As it was seen last; asked for if it was not seen yet."""
        found = self._seen.objects.get(("", name))
        return await self.ask(name) if found is None else _namespace(found)

    async def ask(self, name: str) -> Namespace:
        """As it is now. Raises `MeshError` if the API server cannot be asked."""
        return _namespace(await self._api.get(NAMESPACES, name))


async def keep_labels(api: Api, seen: Reflector, recipe: Recipe) -> None:
    """Label the namespaces that have the annotation, for ever.

    The webhook does so too, as they are annotated; this is for those that it did not see.
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
    """Bring the label in line; `failed` has by name what was said of those for which that may be possible later."""
    name, patch = name_of(item), _patch(item, recipe)
    before = failed.pop(name, "")
    if patch is None:
        return
    try:
        await api.patch(NAMESPACES, name, patch)
    except ObjectMissing:
        return  # it went meanwhile
    except MeshError as error:
        if not isinstance(error, Rejected):  # then it is for somebody to change the namespace
            failed[name] = str(error)
        if str(error) != before:
            log.error(_LACKS if _is_annotated(item, recipe) else _HAS, namespace=name, error=str(error))
    else:
        log.info("namespace labelled", namespace=name, labels=patch["metadata"]["labels"])


def _patch(item: Object, recipe: Recipe) -> Object | None:
    """A merge patch that brings the label in line with the annotation, None if it is."""
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
