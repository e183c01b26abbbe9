"""A webhook beside a real API server that has no nodes: pods are stored and stay pending, which is all it is about.

The webhook runs as a process here, with the service account and the role of its manifests, behind a Service whose
endpoint is written by hand.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.cluster import api_server
from tests.k8s.own_network import ADDRESS, own_network

ROOT = Path(__file__).parents[2]
KEY = "networkservicemesh.io"
LABEL = f"{KEY}/annotated"
URLS = "kernel://first/nsm-1?app=web,kernel://second/nsm-2"
PORT = 8443
SETTINGS = {
    "NSM_NAME": "nsm-webhook",
    "NSM_SERVICE_NAME": "webhook",
    "NSM_NAMESPACE": "nsm-system",
    "NSM_WEBHOOK_MODE": "selfregister",
    "NSM_CONTAINER_IMAGES": "localhost/nsm/nsc:1",
    "NSM_INIT_CONTAINER_IMAGES": "localhost/nsm/nsc-init:1",
    "NSM_LABELS": "spiffe.io/spiffe-id:true",
    "NSM_SIDECAR_USER": "65532:65532",
}


class Refused(Exception):
    """What the API server said instead of doing it."""


class Kube:
    """kubectl as the administrator, and webhooks as their service account."""

    def __init__(self, api, folder):
        self._api, self._folder = api, folder
        self._count = 0

    def __call__(self, *words, stdin=None, seconds=30):
        command = [self._api.kubectl, "--kubeconfig", self._api.kubeconfig, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def apply(self, *items):
        """Returns the objects as they are stored."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        found = json.loads(self("apply", "-o", "json", "-f", "-", stdin=text))
        return found["items"] if found["kind"] == "List" else [found]

    def warnings(self, item):
        """What kubectl prints beside the result when it stores the object."""
        command = [self._api.kubectl, "--kubeconfig", self._api.kubeconfig, "apply", "-f", "-"]
        done = subprocess.run(command, input=json.dumps(item), capture_output=True, text=True, timeout=30, check=True)
        return done.stderr

    def get(self, kind, name, namespace="default"):
        return json.loads(self("get", kind, name, "-n", namespace, "-o", "json"))

    @contextlib.contextmanager
    def webhook(self, told="ready: the API server knows", **more):
        """A webhook that has `told` so in its log; gives its process and the file of the log."""
        token = self("create", "token", "webhook", "-n", "nsm-system").strip()
        config = yaml.safe_load(Path(self._api.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": token}
        self._count += 1
        kubeconfig = self._folder / f"webhook-{self._count}.kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        log = self._folder / f"webhook-{self._count}.log"
        listen = {"NSM_LISTEN_ON": f"tcp://{ADDRESS}:{PORT}", "KUBECONFIG": str(kubeconfig)}
        environment = {"PATH": os.environ["PATH"], **SETTINGS, **listen, **more}
        with log.open("wb") as file:
            words = [sys.executable, "-m", "nsm.chains", "webhook"]
            process = subprocess.Popen(words, env=environment, stderr=file)
        try:
            until(lambda: told in log.read_text() or process.poll() is not None, log.read_text)
            assert process.poll() is None, log.read_text()
            time.sleep(SPREAD)
            yield process, log
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
            process.wait(20)


SPREAD = 1.5
"""Seconds until an API server has noticed a new configuration."""


def until(condition, told=str, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


@contextlib.contextmanager
def cluster(folder, controllers=False):
    """An API server with what the webhook needs; gives its `Kube`."""
    with own_network(), api_server.serve(folder, controllers) as api:
        kube = Kube(api, folder)
        until(lambda: "namespace/default" in kube("get", "namespaces", "-o", "name"))
        kube("create", "namespace", "nsm-system")
        kube("apply", "-f", str(ROOT / "k8s/webhook/rbac.yaml"), "-f", str(ROOT / "k8s/webhook/service.yaml"))
        kube.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "webhook",
                    "namespace": "nsm-system",
                    "labels": {"kubernetes.io/service-name": "webhook"},
                },
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": PORT, "protocol": "TCP"}],
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            }
        )
        yield kube


def pod(name, annotation=None, namespace="default", **spec):
    metadata = {"name": name, "namespace": namespace}
    if annotation is not None:
        metadata["annotations"] = {KEY: annotation}
    container = {"name": "app", "image": "app:1", **spec.pop("container", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def workload(kind, name, annotation):
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }
    spec = {"template": template}
    if kind in {"Job", "CronJob"}:
        template["spec"]["restartPolicy"] = "Never"
        template["metadata"] = {}
    else:
        spec["selector"] = {"matchLabels": {"app": name}}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    if kind == "CronJob":
        spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    version = "batch/v1" if kind in {"Job", "CronJob"} else "apps/v1"
    metadata = {"name": name, "namespace": "default", "annotations": {KEY: annotation}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def clients(item):
    """The names of containers: init ones, others."""
    spec = item["spec"].get("jobTemplate", item)["spec"]
    inner = spec["template"]["spec"] if "template" in spec else spec
    return [[each["name"] for each in inner.get(key, [])] for key in ("initContainers", "containers")]
