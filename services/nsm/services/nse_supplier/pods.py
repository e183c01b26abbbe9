"""Starts endpoints in a Kubernetes cluster: pods from a template, and removes those that have ended."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.core import Internal, InvalidRequest, MeshError
from nsm.chains.logs import log
from nsm.chains.model.templates import compile_template
from nsm.chains.reading import read_yaml
from nsm.kube import Api, Forbidden, ObjectConflict, ObjectMissing
from nsm.kube.resources import NODES, PODS, Object

CREATED_BY = "createdBy"
"""The label of a pod that names its supplier, as upstream's does."""
_NODE = "nodeName"
_ENDED = {"Succeeded", "Failed"}
_LOOK_EVERY = 5.0
"""Seconds between looks at what has ended."""
_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_UUID = re.compile(r"\{\{-?\s*uuid\s*-?\}\}")
_OF_LABELS = re.compile(r"""\bindex\s+\.Labels\s+|\.Labels\.""")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_HOLE = "nsm-{}-hole"


class PodTemplate:
    """A pod's manifest with actions of Go's text/template over a connection.

    There are ``{{ index .Labels "key" }}``, ``{{ .Labels.key }}``, ``{{ .NetworkService }}``, ``{{ .Id }}`` and
    ``{{ uuid }}``. Values come from clients: they are put in after the manifest was parsed, so that they cannot add
    anything to it, and they must be names. Raises ValueError for a template that is no manifest of a pod.
    """

    def __init__(self, text: str) -> None:
        self._actions: dict[str, str] = {}
        self._manifest: Object = read_yaml(_ACTION.sub(self._hole, text))
        if not isinstance(self._manifest, dict) or self._manifest.get("kind") != "Pod":
            raise ValueError("it is not the manifest of a Pod")
        if not isinstance(self._manifest.get("metadata"), dict) or not isinstance(self._manifest.get("spec"), dict):
            raise ValueError("it has no metadata, or no spec")

    def render(self, connection: Connection) -> Object:
        """The pod for a connection. Raises `InvalidRequest` for a value that is no name, or that is missing."""
        values = {hole: self._value(action, connection) for hole, action in self._actions.items()}
        pod: Object = _filled(self._manifest, values)
        return pod

    def _hole(self, found: re.Match[str]) -> str:
        hole = _HOLE.format(len(self._actions))
        self._actions[hole] = found[0]
        return hole

    def _value(self, action: str, connection: Connection) -> str:
        if _UUID.fullmatch(action):
            return str(uuid.uuid4())
        text = action.replace(".NetworkService", "._service").replace(".Id", "._id")
        template = compile_template(_OF_LABELS.sub(lambda found: "index . " if "index" in found[0] else ".", text))
        if template is None:
            raise InvalidRequest(f"the template of the pod has {action[:64]!r}, which cannot be used")
        value = template({**connection.labels, "_service": connection.network_service, "_id": connection.id})
        if not _VALUE.fullmatch(value):
            raise InvalidRequest(
                f"the template of the pod needs {action[:64]}, which is {value[:64]!r} for this client"
            )
        return value


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, values): _filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, str):
        for hole, filling in values.items():
            value = value.replace(hole, filling)
    return value


class PodSupplier:
    """Creates the pods of a template in `namespace`; its pods carry the label `createdBy` with `name`."""

    def __init__(self, api: Api, template: PodTemplate, *, namespace: str, name: str) -> None:
        self._api, self._template, self._namespace, self._name = api, template, namespace, name

    async def supply(self, connection: Connection) -> str:
        """See `Supplier`. The pod is on the client's node, if the cluster has a node of that name.

        Without permission to read nodes, the template alone decides.
        """
        pod = self._template.render(connection)
        pod["metadata"] = {
            **pod["metadata"],
            "namespace": self._namespace,
            "labels": {**(pod["metadata"].get("labels") or {}), CREATED_BY: self._name},
        }
        node = connection.labels.get(_NODE, "")
        is_node = bool(node) and await self._is_node(node)
        if is_node:
            pod["spec"] = {**pod["spec"], "nodeName": node}
        elif is_node is False:
            pod["spec"].pop("nodeName", None)
        name = str(pod["metadata"].get("name") or "")
        if not name:
            raise Internal("the template of the pod has no metadata.name; {{ uuid }} makes unique ones")
        await self._create(pod, name)
        return name

    async def clean_up(self) -> None:
        """Remove pods of ours that have ended, endlessly."""
        tell = log.warning
        while True:
            try:
                await self._remove_ended()
                tell = log.warning
            except MeshError as error:
                tell("pods that have ended cannot be removed", error=str(error))
                tell = log.debug  # once
            await asyncio.sleep(_LOOK_EVERY)

    async def _create(self, pod: Object, name: str) -> None:
        try:
            await self._api.create(PODS, pod, self._namespace)
            log.info("pod created", pod=name, node=pod["spec"].get("nodeName", ""))
        except ObjectConflict:
            there = await self._api.get(PODS, name, self._namespace)
            if not self._has_ended(there):
                return  # it was created for another client, or for an earlier request
            await self._remove(there)
            await self._api.create(PODS, pod, self._namespace)

    async def _remove_ended(self) -> None:
        found = await self._api.list(PODS, self._namespace, labels=f"{CREATED_BY}={self._name}")
        for pod in found.objects:
            if self._has_ended(pod):
                await self._remove(pod)
                log.info("pod removed", pod=pod["metadata"]["name"], phase=pod["status"]["phase"])

    async def _remove(self, pod: Object) -> None:
        metadata = pod["metadata"]
        with suppress(ObjectMissing):
            await self._api.delete(PODS, metadata["name"], self._namespace, uid=metadata.get("uid", ""))

    async def _is_node(self, name: str) -> bool | None:
        """Whether the cluster has a node of that name; None if the supplier may not read nodes."""
        try:
            await self._api.get(NODES, name)
        except ObjectMissing:
            return False
        except Forbidden:
            return None
        return True

    def _has_ended(self, pod: Object) -> bool:
        ours = (pod["metadata"].get("labels") or {}).get(CREATED_BY) == self._name
        return ours and (pod.get("status") or {}).get("phase") in _ENDED
