"""The kinds of objects that create pods, and the location of their pod templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
"""An object of Kubernetes, or a part of one."""

CREATE, UPDATE = "CREATE", "UPDATE"
_LONGEST_NAME = 253


@dataclass(frozen=True)
class Kind:
    """A kind whose objects can be injected into."""

    group: str
    name: str
    resource: str
    template: tuple[str, ...] = ("spec", "template")
    """The path to the pod template; empty: the object is a pod."""
    operations: tuple[str, ...] = (CREATE, UPDATE)

    @property
    def is_pod(self) -> bool:
        """Whether its objects are pods themselves."""
        return not self.template

    def template_of(self, item: Json) -> Json:
        """The pod template in `item`; empty if there is none."""
        found: Any = item
        for key in self.template:
            found = mapping(found, key)
        return dict(found)


POD = Kind("", "Pod", "pods", template=(), operations=(CREATE,))
WORKLOADS = (
    Kind("apps", "Deployment", "deployments"),
    Kind("apps", "DaemonSet", "daemonsets"),
    Kind("apps", "StatefulSet", "statefulsets"),
    Kind("apps", "ReplicaSet", "replicasets"),
    Kind("batch", "Job", "jobs", operations=(CREATE,)),  # its template cannot change
    Kind("batch", "CronJob", "cronjobs", template=("spec", "jobTemplate", "spec", "template")),
)
_BY_NAME = {(kind.group, kind.name): kind for kind in (POD, *WORKLOADS)}


def kind_of(group: str, name: str) -> Kind | None:
    """The kind of that name; None if its objects do not create pods."""
    return _BY_NAME.get((group, name))


def mapping(item: Any, key: str) -> Json:
    """The mapping under `key` of `item`; empty if there is none or it is of another type."""
    found = item.get(key) if isinstance(item, Mapping) else None
    return found if isinstance(found, dict) else {}


def listing(item: Any, key: str) -> list[Json]:
    """The mappings in the list under `key` of `item`; empty if there are none."""
    found = item.get(key) if isinstance(item, Mapping) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def annotations_of(item: Json) -> Json:
    """The annotations of an object or of a template."""
    return mapping(mapping(item, "metadata"), "annotations")


def labels_of(item: Json) -> Json:
    """The labels of an object or of a template."""
    return mapping(mapping(item, "metadata"), "labels")


def name_of(item: Json) -> str:
    """The object's name, or its generateName; an invalid name is escaped and shortened."""
    metadata = mapping(item, "metadata")
    name, beginning = metadata.get("name"), metadata.get("generateName")
    if isinstance(name, str) and name:
        return _shown(name)
    return f"{_shown(beginning) if isinstance(beginning, str) else ''}*"


def shortened(text: str, most: int) -> str:
    """`text`, shortened in the middle if it has more than `most` characters: its end often says what to write."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _shown(name: str) -> str:
    name = shortened(name, _LONGEST_NAME)
    return name if name.isprintable() else ascii(name)


def is_controlled_by(item: Json, kind: str) -> bool:
    """Whether an object of `kind` manages `item`."""
    owners = listing(mapping(item, "metadata"), "ownerReferences")
    return any(owner.get("controller") and owner.get("kind") == kind for owner in owners)
