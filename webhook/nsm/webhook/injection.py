"""Adds clients to a pod's template, and removes them.

Functions are pure: they return new templates. An injection can be repeated, on request of another webhook or after an
update; it then replaces the earlier one, which is recorded in an annotation on the template (the
recipe's `marker`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .annotation import Asked
from .images import Image
from .kinds import Json, annotations_of, listing, mapping
from .names import variables as names_variables
from .names import with_names, without_names
from .podsecurity import (
    IDENTITY_FOLDER,
    Level,
    is_socket_volume,
    security_context,
    socket_mounts,
    socket_volumes,
)
from .recipe import Recipe

READY_VOLUME, READY_FOLDER = "nsm-ready", "/run/nsm"
_READY: Json = {"name": READY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
_READY_MOUNT: Json = {"name": READY_VOLUME, "mountPath": READY_FOLDER}
_STATE: Json = {"name": "NSM_STATE_FOLDER", "value": f"{READY_FOLDER}/state"}
"""Where a client that starts again finds what it had: it lives as long as the pod's network namespace."""
SERVICES_VOLUME, _SERVICES_FOLDER, _SERVICES = "nsm-services", "/run/nsm-services", "services"
_SERVICES_MOUNT: Json = {"name": SERVICES_VOLUME, "mountPath": _SERVICES_FOLDER, "readOnly": True}
_SERVICES_FILE: Json = {"name": "NSM_NETWORK_SERVICES_FILE", "value": f"{_SERVICES_FOLDER}/{_SERVICES}"}
_PATIENCE = 7 * 24 * 3600
"""Seconds after which a client without wires is restarted."""
_TRY = 3
"""Seconds for which one startup probe waits for the file: a client that has its wires by then causes no event."""
_LOOK = """\
n=0
until [ -e "$0" ]; do
  n=$((n+1))
  if [ $n -gt $1 ]; then
    cat "$0.why" 2>/dev/null || echo "the client has not reported anything yet; see its log"
    exit 1
  fi
  sleep 0.2
done"""
"""The probe's output on failure becomes a pod event: what the client is waiting for."""
_LISTS = ("initContainers", "containers")


def carries(template: Json, value: str, recipe: Recipe) -> bool:
    """Whether `template` has all clients for exactly `value`, whoever added them."""
    clients = {name: _variable(each, recipe.url_variable) for name, each in _clients(template, recipe).items()}
    return value in clients.values() and marked(template, recipe) <= clients.keys()


def marked(template: Json, recipe: Recipe) -> set[str]:
    """The names of the containers that an earlier injection added."""
    return set(filter(None, str(annotations_of(template).get(recipe.marker, "")).split(",")))


def inject(template: Json, asked: Asked, recipe: Recipe, level: Level, name: str) -> Json:
    """`template` with clients for `asked`, with the name `name`, or that of an earlier injection.

    Raises ValueError if a container has the name of a client.
    """
    name = _name_of_earlier(template, recipe) or name
    bare = withdraw(template, recipe)
    clients = _Clients(asked, recipe, level, name)
    spec = dict(mapping(bare, "spec"))
    before, beside = clients.before(), clients.beside()
    _check_names(spec, [*before, *beside])
    there = listing(spec, "initContainers")
    _put(spec, "initContainers", [*before, *there] if recipe.native else [*there, *before])
    _put(spec, "containers", [*listing(spec, "containers"), *beside])
    _put(spec, "volumes", _joined(listing(spec, "volumes"), clients.volumes()))
    made = [client["name"] for client in [*before, *beside]]
    if clients.keeps_names:  # init containers before the client start before the copy exists
        lists = _LISTS if recipe.native else ("containers",)
        spec = dict(with_names(spec, READY_VOLUME, clients=made, lists=lists))
    metadata = dict(mapping(bare, "metadata"))
    _put(metadata, "labels", {**recipe.labels, **mapping(metadata, "labels")})
    marker = {recipe.marker: ",".join(made)}
    _put(metadata, "annotations", {**mapping(metadata, "annotations"), **marker})
    return {**bare, "metadata": metadata, "spec": spec}


def withdraw(template: Json, recipe: Recipe) -> Json:
    """`template` without an earlier injection; labels stay, because they may have existed before."""
    gone = _clients(template, recipe).keys() & (marked(template, recipe) | _own_names(recipe))
    if not gone:
        return template
    spec = dict(without_names(mapping(template, "spec"), READY_VOLUME, _LISTS))
    metadata = dict(mapping(template, "metadata"))
    for key in _LISTS:
        if key in spec:
            _put(spec, key, [each for each in listing(spec, key) if _name(each) not in gone])
    used = {_name(mount) for each in _containers({"spec": spec}) for mount in listing(each, "volumeMounts")}
    volumes = listing(spec, "volumes")
    _put(spec, "volumes", [each for each in volumes if _name(each) in used or not _is_made(each, recipe)])
    kept = {key: value for key, value in annotations_of(template).items() if key != recipe.marker}
    _put(metadata, "annotations", kept)
    return {**template, "metadata": metadata, "spec": spec}


class _Clients:
    """The containers of one pod's clients, and the volumes that they mount."""

    def __init__(self, asked: Asked, recipe: Recipe, level: Level, name: str) -> None:
        self._asked, self._recipe, self._level, self._name = asked, recipe, level, name
        self._is_probed = recipe.native and recipe.tells_ready
        self._tells = recipe.tells_ready and bool(recipe.images) and (recipe.native or recipe.readiness_probe)
        self.keeps_names = recipe.keeps_names
        """Whether the pod is prepared so that a client that is not root can resolve names of wires."""

    def before(self) -> list[Json]:
        """The clients among the init containers."""
        recipe = self._recipe
        asking = [] if self._is_probed else [self._container(image, recipe.init_images) for image in recipe.init_images]
        return [*asking, *(self._native(image) for image in recipe.images)] if recipe.native else asking

    def beside(self) -> list[Json]:
        """The clients among the ordinary containers."""
        return [] if self._recipe.native else [self._keeping(image) for image in self._recipe.images]

    def volumes(self) -> list[Json]:
        """The volumes that they mount."""
        recipe = self._recipe
        sockets = socket_volumes(self._level, recipe.identity_driver, csi_everywhere=recipe.csi_everywhere)
        ready = [_READY] if self._tells or self.keeps_names else []
        return [*sockets, *ready, *([_services(recipe)] if recipe.follows_pods else [])]

    def _keeping(self, image: Image) -> Json:
        takes = () if self._recipe.init_images and not self._is_probed else self._recipe.images
        container = self._container(image, takes)
        if self._tells:
            container["env"] = [*container["env"], {"name": "NSM_READY_FILE", "value": _file(image)}]
        if self._tells and not self.keeps_names:
            container["env"] = [*container["env"], _STATE]
            container["volumeMounts"] = [*container["volumeMounts"], _READY_MOUNT]
        if self._tells and self._recipe.readiness_probe:
            container["readinessProbe"] = {**_looks_for(image, seconds=0), "periodSeconds": 5, "timeoutSeconds": 5}
        return container

    def _native(self, image: Image) -> Json:
        """An init container that keeps running, and lets the next one start once its wires are up."""
        container = {**self._keeping(image), "restartPolicy": "Always"}
        if self._is_probed:
            often = {"periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": _PATIENCE // _TRY}
            container["startupProbe"] = {**_looks_for(image, seconds=_TRY), **often}
        return container

    def _container(self, image: Image, takes_devices: tuple[Image, ...]) -> Json:
        """A client with its resources; the clients that request wires first get the devices."""
        devices = self._asked.devices if image in takes_devices else {}
        limits = {**self._recipe.limits, **{name: str(count) for name, count in devices.items()}}
        context = security_context(self._level, self._recipe.user)
        return {
            "name": image.container,
            "image": image.reference,
            "imagePullPolicy": "IfNotPresent",
            "env": self._variables(),
            "resources": {"limits": limits, "requests": dict(self._recipe.requests)},
            "volumeMounts": [
                *socket_mounts(),
                *([_READY_MOUNT] if self.keeps_names else []),
                *([_SERVICES_MOUNT] if self._recipe.follows_pods else []),
            ],
            **({"securityContext": context} if context else {}),
        }

    def _variables(self) -> list[Json]:
        configured = [{"name": name, "value": value} for name, value in self._recipe.variables]
        names = {variable["name"] for variable in configured}
        own: list[Json] = [
            {"name": "SPIFFE_ENDPOINT_SOCKET", "value": f"unix://{IDENTITY_FOLDER}/agent.sock"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": self._recipe.url_variable, "value": self._asked.value},
            {"name": "NSM_NAME", "value": self._name},  # after POD_NAME, which it may refer to
            *([_STATE, *names_variables(READY_FOLDER)] if self.keeps_names else []),
            *([_SERVICES_FILE] if self._recipe.follows_pods else []),
        ]
        return [*configured, *(variable for variable in own if variable["name"] not in names)]


def _file(image: Image) -> str:
    return f"{READY_FOLDER}/{image.container}-has-wires"


def _looks_for(image: Image, *, seconds: int) -> Json:
    return {"exec": {"command": ["sh", "-c", _LOOK, _file(image), str(5 * seconds)]}}


def _clients(template: Json, recipe: Recipe) -> dict[str, Json]:
    """The containers with the variable for URLs, by name."""
    return {_name(each): each for each in _containers(template) if _variable(each, recipe.url_variable) is not None}


def _containers(template: Json) -> Iterable[Json]:
    spec = mapping(template, "spec")
    return [each for key in _LISTS for each in listing(spec, key)]


def _services(recipe: Recipe) -> Json:
    """A volume with the current value of the pod's annotation, in full, as the API server stores it."""
    field = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{recipe.annotation}']"}
    items = [{"path": _SERVICES, "fieldRef": field}]
    return {"name": SERVICES_VOLUME, "downwardAPI": {"defaultMode": 0o644, "items": items}}


def _is_made(volume: Json, recipe: Recipe) -> bool:
    """Whether `volume` is as an injection creates it; a pod may have its own volume of that name."""
    return volume in (_READY, _services(recipe)) or is_socket_volume(volume)


def _name(item: Json) -> str:
    """The name of `item` as text; the API server later rejects one that is not."""
    return str(item.get("name"))


def _own_names(recipe: Recipe) -> set[str]:
    return {image.container for image in (*recipe.images, *recipe.init_images)}


def _variable(container: Json, name: str) -> str | None:
    values = [each.get("value") for each in listing(container, "env") if each.get("name") == name]
    return str(values[-1] or "") if values else None


def _name_of_earlier(template: Json, recipe: Recipe) -> str | None:
    earlier = marked(template, recipe)
    names = [_variable(each, "NSM_NAME") for name, each in _clients(template, recipe).items() if name in earlier]
    return next(filter(None, names), None)


def _check_names(spec: Json, clients: Iterable[Json]) -> None:
    taken = {_name(each) for each in _containers({"spec": spec})}
    if twice := sorted(client["name"] for client in clients if client["name"] in taken):
        raise ValueError(f"container {twice[0]!r} has the name of a client that would be injected; rename it")


def _joined(there: list[Json], more: list[Json]) -> list[Json]:
    """`there`, and those of `more` with other names: an existing volume of the pod is shared."""
    names = {_name(volume) for volume in there}
    return [*there, *(volume for volume in more if volume["name"] not in names)]


def _put(item: Json, key: str, value: Any) -> None:
    """Set `key`, or remove it if `value` is empty."""
    if value:
        item[key] = value
    else:
        item.pop(key, None)
