"""Reviews as an API server sends them, and objects with what their patch says."""

import base64
import copy
import json

import jsonpatch

from nsm.chains.core import Unavailable
from nsm.webhook.admission import Admission
from nsm.webhook.decision import Namespace
from nsm.webhook.images import images
from nsm.webhook.recipe import Recipe

KEY = "networkservicemesh.io"
GROUPS = {"Pod": "", "Namespace": "", "Job": "batch", "CronJob": "batch"}


def recipe(**more):
    """What a cluster injects unless the test says otherwise: the classic way, nothing for names or changes."""
    values = {
        "annotation": KEY,
        "url_variable": "NSM_NETWORK_SERVICES",
        "images": images("localhost/nsm/nsc:1"),
        "init_images": images("localhost/nsm/nsc-init:1"),
        "labels": {"spiffe.io/spiffe-id": "true"},
        "limits": {"cpu": "200m", "memory": "80Mi"},
        "requests": {"cpu": "100m", "memory": "40Mi"},
        "identity_driver": "csi.spiffe.io",
        "native": False,
        "names": False,
        "follows": False,
    }
    return Recipe(**{**values, **more})


class Known:
    """Namespaces: as they were seen, and as they are."""

    def __init__(self, seen=None, now=None):
        self.seen, self.now, self.asked = seen or {}, now or {}, []

    async def get(self, name):
        if name not in self.seen:
            return await self.ask(name)
        return self._namespace(name, self.seen[name])

    async def ask(self, name):
        self.asked.append(name)
        found = self.now.get(name, self.seen.get(name))
        if found is None:
            raise Unavailable("the API server cannot be reached")
        return self._namespace(name, found)

    def _namespace(self, name, metadata):
        return Namespace(name, metadata.get("annotations", {}), metadata.get("labels", {}))


def review(item, operation="CREATE", uid="u-1", before=None):
    kind, metadata = item["kind"], item.get("metadata", {})
    request = {
        "uid": uid,
        "kind": {"group": GROUPS.get(kind, "apps"), "version": "v1", "kind": kind},
        "operation": operation,
        "namespace": metadata.get("namespace", "default"),
        "object": item,
        "oldObject": before,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def patch_of(answer):
    response = answer["response"]
    assert response["allowed"], response
    assert ("patch" in response) == (response.get("patchType") == "JSONPatch")
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


class Cluster:
    """An API server's part: asks the webhook about objects and applies what it answers."""

    def __init__(self, *, namespaces=None, now=None, **more):
        self.namespaces = Known({"default": {}} if namespaces is None else namespaces, now)
        self.admission = Admission(recipe(**more), self.namespaces)

    async def answer(self, item, operation="CREATE", before=None):
        return (await self.admission.review(review(item, operation, before=before)))["response"]

    async def store(self, item, operation="CREATE"):
        """The object as it would be stored."""
        before = copy.deepcopy(item)
        answer = await self.admission.review(review(item, operation))
        assert item == before
        return jsonpatch.apply_patch(item, patch_of(answer))

    async def refusal(self, item, operation="CREATE"):
        response = await self.answer(item, operation)
        assert not response["allowed"]
        assert response["uid"] == "u-1"
        assert "patch" not in response
        return response["status"]["message"]


def pod(annotation=None, **metadata):
    annotations = {"annotations": {KEY: annotation}} if annotation is not None else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", **annotations, **metadata},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }


def workload(kind, annotation=None, **template_metadata):
    annotations = {"annotations": {KEY: annotation}} if annotation is not None else {}
    template = {
        "metadata": {"labels": {"app": "web"}, **template_metadata},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }
    spec = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    return {"kind": kind, "metadata": {"name": "web", "namespace": "default", **annotations}, "spec": spec}


def template_of(item):
    spec = item["spec"]
    return spec["jobTemplate"]["spec"]["template"] if item["kind"] == "CronJob" else spec["template"]


def containers(spec, key="containers"):
    return [each["name"] for each in spec.get(key, [])]


def variables(container):
    return {each["name"]: each.get("value") for each in container["env"]}
