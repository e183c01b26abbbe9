"""The namespaces of the cluster: an index that is kept up to date, and the label that says which are annotated."""

from __future__ import annotations

from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.kube import NAMESPACES, Api, Object, ObjectMissing, Reflector

from .decision import Namespace, namespace_labels
from .kinds import annotations_of, labels_of, name_of
from .recipe import Recipe


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
    async for change in seen.changes():
        if change.now is not None and (patch := _patch(change.now, recipe)) is not None:
            await _label(api, name_of(change.now), patch)


def _patch(item: Object, recipe: Recipe) -> Object | None:
    """A merge patch that brings the label in line with the annotation, None if it is."""
    is_annotated = bool(str(annotations_of(item).get(recipe.annotation) or "").strip())
    before = labels_of(item)
    after = namespace_labels(before, recipe, is_annotated=is_annotated)
    return (
        None
        if before == after
        else {"metadata": {"labels": {recipe.namespace_label: "true" if is_annotated else None}}}
    )


async def _label(api: Api, name: str, patch: Object) -> None:
    try:
        await api.patch(NAMESPACES, name, patch)
    except ObjectMissing:
        return  # it went meanwhile
    except MeshError as error:
        log.error(
            "a namespace has the annotation and not the label: its pods get no wires", namespace=name, error=str(error)
        )
    else:
        log.info("namespace labelled", namespace=name, labels=patch["metadata"]["labels"])


def _namespace(item: Object) -> Namespace:
    return Namespace(name_of(item), annotations_of(item), labels_of(item))
