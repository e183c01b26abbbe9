"""The API of a cluster without its nodes: etcd and the API server, ready in seconds.

with serve(folder) as api:
    subprocess.run([api.kubectl, "--kubeconfig", api.kubeconfig, "get", "namespaces"])
"""

import json
import socket
import ssl
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

from . import binary, identities
from .programs import Programs, answers

SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"


@dataclass(frozen=True)
class Api:
    """A running API server."""

    url: str
    identities: identities.Identities
    bin: object

    def get(self, path):
        """The object at a path of the API, or None if it is not there."""
        try:
            with self._asked(path) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise

    def patch(self, path, change):
        """Merge a change into the object at a path."""
        with self._asked(path, json.dumps(change).encode(), method="PATCH"):
            pass

    def watch(self, path):
        """What is there, and what changes, as events; ends after some minutes, or with the connection."""
        with self._asked(f"{path}?watch=1", seconds=None) as answer:
            yield from map(json.loads, answer)

    def _asked(self, path, data=None, method="GET", seconds=5):
        tls = ssl.create_default_context(cafile=self.identities.file("ca.crt"))
        headers = {
            "Authorization": f"Bearer {self.identities.tokens[identities.ADMIN]}",
            "Content-Type": "application/merge-patch+json",
        }
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        return urllib.request.urlopen(request, timeout=seconds, context=tls)

    @property
    def kubectl(self):
        return self.bin / "kubectl"

    @property
    def kubeconfig(self):
        """The administrator's."""
        return self.identities.kubeconfig(identities.ADMIN, self.url)


@contextmanager
def serve(folder, controllers=False):
    """Etcd and an API server on free ports of the loopback, until the end of the block; all files are in `folder`.

    Pods can be made and stay pending. `controllers` adds the controller manager, by which namespaces can be deleted,
    owners take along what is theirs, and service accounts appear.
    """
    who = identities.make(folder / "identities", ["127.0.0.1", FIRST_SERVICE])
    with Programs(folder / "logs") as programs:
        options = ["--endpoint-reconciler-type=none"]  # the loopback cannot be an endpoint
        if not controllers:
            options.append("--disable-admission-plugins=ServiceAccount")  # pods would wait for theirs
        api = start(programs, folder, who, binary.programs(), ports=free_ports(3), more=options)
        if controllers:
            start_controllers(programs, api)
        yield api


def start(programs, folder, who, binaries, address="127.0.0.1", ports=(6443, 2379, 2380), more=()):
    """Start etcd and the API server; returns once the server is ready. `more` are options of the server."""
    port, etcd_port, peer_port = ports
    etcd = f"http://127.0.0.1:{etcd_port}"
    peer = f"http://127.0.0.1:{peer_port}"
    programs.start(
        "etcd",
        [
            binaries / "etcd",
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ],
        env={},
    )
    url = f"https://{address}:{port}"
    programs.start(
        "kube-apiserver",
        [
            binaries / "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={port}",
            f"--tls-cert-file={who.file('server.crt')}",
            f"--tls-private-key-file={who.file('server.key')}",
            f"--client-ca-file={who.file('ca.crt')}",
            f"--token-auth-file={who.file('tokens.csv')}",
            f"--service-account-key-file={who.file('accounts.pub')}",
            f"--service-account-signing-key-file={who.file('accounts.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--kubelet-client-certificate={who.file('client.crt')}",
            f"--kubelet-client-key={who.file('client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--enable-aggregator-routing=true",  # services of webhooks: straight to their pods, without kube-proxy
            *more,
        ],
        env={},
    )
    tls = ssl.create_default_context(cafile=who.file("ca.crt"))
    token = who.tokens[identities.ADMIN]
    programs.wait_until(lambda: answers(f"{url}/readyz", tls, token), "the API server is ready")
    return Api(url, who, binaries)


def start_controllers(programs, api, more=()):
    """Start the controller manager; `more` are options of it."""
    programs.start(
        "kube-controller-manager",
        [
            api.bin / "kube-controller-manager",
            f"--kubeconfig={api.identities.kubeconfig('system:kube-controller-manager', api.url)}",
            f"--service-account-private-key-file={api.identities.file('accounts.key')}",
            f"--root-ca-file={api.identities.file('ca.crt')}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            *more,
        ],
        env={},
    )


def free_ports(count):
    """Ports of the loopback that nobody has right now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
