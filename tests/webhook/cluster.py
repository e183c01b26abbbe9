"""An API server's store, as far as the webhook writes to it."""

import asyncio
import copy

from nsm.kube import Change, ObjectConflict, ObjectMissing, Unreachable


class FakeApi:
    """Objects with versions; `down` makes it unreachable, `beforehand` lets others come first, once."""

    def __init__(self):
        self.objects, self.writes, self.down, self.beforehand = {}, 0, False, None
        self._version = 0

    async def get(self, resource, name, namespace=""):
        self._up()
        if (resource.plural, name) not in self.objects:
            raise ObjectMissing(f"there is no {name}")
        return copy.deepcopy(self.objects[resource.plural, name])

    async def create(self, resource, body, namespace=""):
        await self._others()
        if (resource.plural, body["metadata"]["name"]) in self.objects:
            raise ObjectConflict("there is one")
        return self._store(resource, body)

    async def replace(self, resource, body):
        await self._others()
        self._check(resource, body["metadata"]["name"], body["metadata"].get("resourceVersion"))
        return self._store(resource, body)

    async def delete(self, resource, name, namespace="", *, uid="", version=""):
        await self._others()
        self._check(resource, name, version)
        assert uid in {"", "1"}
        del self.objects[resource.plural, name]
        self.writes += 1

    async def patch(self, resource, name, patch, namespace=""):
        """A merge patch of labels."""
        self._up()
        self._check(resource, name, "")
        labels = self.objects[resource.plural, name]["metadata"].setdefault("labels", {})
        for key, value in patch["metadata"]["labels"].items():
            if value is None:
                labels.pop(key, None)
            else:
                labels[key] = value
        self.writes += 1

    def _up(self):
        if self.down:
            raise Unreachable("the API server cannot be reached")

    async def _others(self):
        self._up()
        others, self.beforehand = self.beforehand, None
        if others is not None:
            await others()

    def _check(self, resource, name, version):
        if (resource.plural, name) not in self.objects:
            raise ObjectMissing(f"there is no {name}")
        if version and version != self.objects[resource.plural, name]["metadata"]["resourceVersion"]:
            raise ObjectConflict("it was changed")

    def _store(self, resource, body):
        self._version += 1
        self.writes += 1
        stored = copy.deepcopy(body)
        stored["metadata"] |= {"resourceVersion": str(self._version), "uid": "1"}
        for entry in stored.get("webhooks", []):
            entry.setdefault("objectSelector", {})  # the server's defaults
        self.objects[resource.plural, stored["metadata"]["name"]] = stored
        return stored


class FakeReflector:
    """What is seen of a kind of objects, and changes that the test makes."""

    def __init__(self, *items):
        self.objects = {("", item["metadata"]["name"]): item for item in items}
        self._changes = asyncio.Queue()
        for item in items:
            self._changes.put_nowait(Change(None, item))

    def change(self, item):
        self.objects["", item["metadata"]["name"]] = item
        self._changes.put_nowait(Change(None, item))

    async def changes(self):
        while True:
            yield await self._changes.get()
            self._changes.task_done()

    async def all_read(self):
        await self._changes.join()
