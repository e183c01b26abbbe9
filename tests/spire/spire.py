"""A SPIRE in the cluster: its server, its controller manager and its agents, and a CSI driver of ours for its socket."""

import json
from pathlib import Path

from tests.cluster.layout import CHECKOUT
from tests.k8s.system import Kubectl, eventually
from tests.spire import binary

MANIFESTS = Path(__file__).parent / "manifests"
DOMAIN = "wires.example"
NAMESPACE = "spire-system"
CSI_DRIVER = CHECKOUT / "k8s/spire/csi-driver"
VARIANT = CHECKOUT / "k8s/variants/spire"
SERVER, AGENT = "statefulset/spire-server", "daemonset/spire-agent"


class Spire:
    """The SPIRE that runs."""

    def __init__(self, kubectl):
        self._kubectl = kubectl.within(NAMESPACE)

    def restart_agents(self):
        """New pods, with new keys, which prove anew on which node they are."""
        self._kubectl("rollout", "restart", AGENT)
        self._kubectl.rolled_out(AGENT)

    def restart_server(self):
        """End its program; the kubelet starts it again, with the data that it had."""
        before = self._restarts()
        self._kubectl("exec", "spire-server-0", "-c", "spire-server", "--", "sh", "-c", "kill $(pidof spire-server)")
        assert eventually(lambda: self._restarts() > before), "the server was not started again"
        self._kubectl.ready("spire-server-0")

    def prepare_authority(self):
        """Have the server make another authority and tell all of it; gives its id."""
        return self._authority("prepare")["prepared_authority"]["authority_id"]

    def activate_authority(self, prepared):
        """Have the server sign by it from now on; gives the id of the one by which it signed before."""
        before = self._authority("show")["active"]["authority_id"]
        self._authority("activate", "-authorityID", prepared)
        return before

    def taint_authority(self, old):
        """Have agents replace what it has signed."""
        self._authority("taint", "-authorityID", old)

    def revoke_authority(self, old):
        """Have nobody trust it any more."""
        self._authority("revoke", "-authorityID", old)

    def _authority(self, *words):
        command = ["spire-server", "localauthority", "x509", *words]
        options = ["-socketPath", "/run/spire/private/api.sock", "-output", "json"]
        return json.loads(self._kubectl("exec", "spire-server-0", "-c", "spire-server", "--", *command, *options))

    def _restarts(self):
        pod = self._kubectl.get("pod/spire-server-0")
        return {each["name"]: each for each in pod["status"]["containerStatuses"]}["spire-server"]["restartCount"]


def bring_up(cluster, folder):
    """Load SPIRE's images, from archives that go into `folder`; apply its manifests, the server's before the agents'."""
    for archive in binary.write_images(folder):
        cluster.load(archive)
    kubectl = Kubectl(cluster)
    kubectl("apply", "-f", binary.programs() / "crds.yaml")
    for name, workload in (("server", SERVER), ("agent", AGENT)):
        kubectl("apply", "-k", MANIFESTS / name)
        kubectl.within(NAMESPACE).rolled_out(workload)
    kubectl("apply", "-k", CSI_DRIVER)
    return Spire(kubectl)


def take_down(kubectl):
    """All of it."""
    for folder in (CSI_DRIVER, MANIFESTS / "agent", MANIFESTS / "server"):
        kubectl("delete", "-k", folder, "--ignore-not-found", "--timeout=100s")
    kubectl("delete", "-f", binary.programs() / "crds.yaml", "--ignore-not-found", "--timeout=100s")
