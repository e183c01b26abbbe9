"""A Prometheus that reads the pods of a cluster that are annotated for it."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

from tests.k8s.system import eventually


def configuration(pods):
    """Reads, each second, the annotated port of annotated pods; a series says its component, its pod and its node.

    Debian's Prometheus cannot ask an API server itself.
    """
    asked = {"metrics_path": "/metrics", "static_configs": [target(pod) for pod in pods if is_annotated(pod)]}
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "nsm", **asked}],
    }


def is_annotated(pod):
    return pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"


def target(pod):
    about, spec = pod["metadata"], pod["spec"]
    address = f"{pod['status']['podIP']}:{about['annotations']['prometheus.io/port']}"
    labels = {"component": spec["containers"][0]["name"], "pod": about["name"], "node": spec["nodeName"]}
    return {"targets": [address], "labels": labels}


class Prometheus:
    """One that runs and answers at `url`."""

    def __init__(self, url, log):
        self.url, self.log = url, log

    def ask(self, path, **parameters):
        """What its API answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def targets(self):
        """Labels, health and trouble of all that it reads."""
        found = self.ask("targets", state="active")["activeTargets"]
        return [(each["labels"], each["health"], each["lastError"]) for each in found]

    def values(self, expression):
        """What an expression is now: labels and a number of each series."""
        found = self.ask("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def sum(self, series):
        """The sum of all series of that description; 0 if there are none."""
        return sum(value for _, value in self.values(series))

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False


@contextmanager
def prometheus(pods, folder):
    """Run one for `pods`, as the API server tells them, in the network of this process until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(json.dumps(configuration(pods)))
    words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    running = Prometheus(f"http://127.0.0.1:{port}", folder / "log")
    try:
        assert eventually(lambda: running.is_ready() or process.poll() is not None), "it does not become ready"
        assert process.poll() is None, running.log.read_text()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
