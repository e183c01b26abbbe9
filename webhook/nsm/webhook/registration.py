"""Registers a replica in the MutatingWebhookConfiguration, which the replicas of a webhook share.

Each replica has its own authority, and the configuration trusts all of them: a starting replica adds its authority, a
stopping one removes it, and the last one removes the configuration. Keys never leave their process.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.core import Conflict, InvalidRequest
from nsm.chains.logs import log
from nsm.kube import NAMESPACES, Api, Object, ObjectConflict, ObjectMissing, Resource

from .configuration import bundle_of

CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
_TRIES = 20
"""Attempts, in case of concurrent changes."""
_MOST = 100
"""The most authorities of others that are kept, newest first: a killed replica cannot remove its own, and one that is
killed repeatedly would fill the configuration. Running replicas add theirs again."""


class Registration:
    """`build` makes the configuration for a bundle of authorities (PEM).

    It belongs to `namespace`: when that is deleted, and with it our right to clean up, Kubernetes does it.
    """

    def __init__(self, api: Api, build: Callable[[str], Object], namespace: str) -> None:
        self._api, self._build, self._namespace = api, build, namespace
        self._owners: list[Object] = []
        self._name = build("")["metadata"]["name"]
        self._ours: set[str] = set()

    async def publish(self, authorities: str) -> None:
        """Make the API server trust `authorities` (PEM) instead of our earlier ones. Raises `MeshError`.

        Writes nothing if the configuration is up to date; corrects manual changes.
        """
        wanted = _certificates(authorities)
        if not wanted:
            raise InvalidRequest("cannot register: the authorities of the certificate have expired")
        former = self._ours - set(wanted)
        self._ours |= set(wanted)  # before the write, which may succeed even if it is cancelled

        def change(there: list[str]) -> list[str]:
            others = [pem for pem in there if pem not in former and pem not in wanted]
            gone = {*former, *others[:-_MOST]}
            return [*(pem for pem in there if pem not in gone), *wanted]

        await self._write(change)
        self._ours = set(wanted)

    async def withdraw(self) -> None:
        """Remove our authorities, and the configuration if they were the last. Raises `MeshError`."""
        await self._write(lambda there: [pem for pem in there if pem not in self._ours])
        self._ours = set()

    async def _write(self, change: Callable[[list[str]], list[str]]) -> None:
        for _ in range(_TRIES):
            try:
                await self._write_once(change)
            except (ObjectConflict, ObjectMissing):
                continue  # another replica was faster
            return
        raise Conflict(f"the configuration {self._name} is constantly changed by another client")

    async def _write_once(self, change: Callable[[list[str]], list[str]]) -> None:
        try:
            found = await self._api.get(CONFIGURATIONS, self._name)
        except ObjectMissing:
            found = None
        there = _certificates(bundle_of(found)) if found is not None else []
        bundle = list(dict.fromkeys(change(there)))
        if found is None:
            if bundle:
                await self._api.create(CONFIGURATIONS, await self._wanted(bundle, {}))
                log.info("registered", configuration=self._name)
        elif not bundle:
            metadata = found["metadata"]
            await self._api.delete(CONFIGURATIONS, self._name, uid=metadata["uid"], version=metadata["resourceVersion"])
            log.info("unregistered: this was the last replica", configuration=self._name)
        elif not _says(found, wanted := await self._wanted(bundle, found["metadata"])):
            await self._api.replace(CONFIGURATIONS, wanted)
            log.info("registration changed", configuration=self._name, authorities=len(bundle))

    async def _wanted(self, bundle: list[str], metadata: Object) -> Object:
        """The configuration for `bundle`, with other clients' changes to the current `metadata`."""
        if not self._owners:
            self._owners = await self._find_owners()
        wanted = self._build("".join(bundle))
        labels = {**metadata.get("labels", {}), **wanted["metadata"]["labels"]}
        owners = {"ownerReferences": self._owners} if self._owners else {}
        return {**wanted, "metadata": {**metadata, **wanted["metadata"], "labels": labels, **owners}}

    async def _find_owners(self) -> list[Object]:
        try:
            uid = (await self._api.get(NAMESPACES, self._namespace))["metadata"]["uid"]
        except ObjectMissing:
            return []
        return [{"apiVersion": "v1", "kind": "Namespace", "name": self._namespace, "uid": uid}]


def _certificates(pem: str) -> list[str]:
    """The certificates of a bundle that have not expired, each as PEM; none if it cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode()) if pem.strip() else []
    except ValueError:
        return []
    now = datetime.datetime.now(datetime.UTC)
    return [each.public_bytes(Encoding.PEM).decode() for each in found if each.not_valid_after_utc > now]


def _says(found: Any, wanted: Any) -> bool:
    """Whether `found` contains everything in `wanted`; the API server adds defaults."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and _says(found[key], each) for key, each in wanted.items())
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        same_length = isinstance(found, list) and len(found) == len(wanted)
        return same_length and all(_says(one, other) for one, other in zip(found, wanted, strict=True))
    return bool(found == wanted)
