"""The webhook's variables, and the recipe that they define."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nsm.chains.config import Common, duration, flag, items, number, pairs, text, url, variable
from nsm.chains.config.names import fault_of
from nsm.chains.core import InvalidRequest

from .annotation import MECHANISMS, Served
from .images import Image, images
from .kinds import Json
from .recipe import Recipe

SPIRE, SELF_REGISTER = "spire", "selfregister"
AUTO, NATIVE, CLASSIC = "auto", "native", "classic"
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_USER = re.compile(r"[0-9]+(:[0-9]+)?")
_LONGEST_NAME = 63
_PREFIX = re.compile(r"([a-z0-9][-a-z0-9]{0,31})?")
_SHORTEST_LIFETIME = 60.0


def _quantity(value: str) -> str:
    """An amount as Kubernetes writes it."""
    if not _QUANTITY.fullmatch(value):
        raise ValueError("expected an amount such as 80Mi or 200m")
    return value


def _variables(value: str) -> tuple[tuple[str, str], ...]:
    """A list of NAME=value; a value may have further equals signs."""
    found = []
    for item in items(value):
        name, equals, rest = item.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise ValueError(f"expected NAME=value,NAME=value; {item!r} is not one")
        found.append((name, rest))
    return tuple(found)


def _user(value: str) -> Json:
    """UID or UID:GID, as fields of a security context."""
    if value and not _USER.fullmatch(value):
        raise ValueError("expected a user id, or user:group such as 65532:65532")
    keys = ("runAsUser", "runAsGroup")
    return {key: int(each) for key, each in zip(keys, value.split(":"), strict=False) if each}


def _prefix(value: str) -> str:
    """The prefix of container names."""
    if not _PREFIX.fullmatch(value):
        raise ValueError(
            "expected up to 32 lower-case letters, digits and dashes, not beginning with a dash, such as cmd-"
        )
    return value


def _mode(value: str) -> str:
    if value not in {SPIRE, SELF_REGISTER}:
        raise ValueError(f"expected {SPIRE} or {SELF_REGISTER}")
    return value


def _sidecars(value: str) -> str:
    if value not in {AUTO, NATIVE, CLASSIC}:
        raise ValueError(f"expected {AUTO}, {NATIVE} or {CLASSIC}")
    return value


def _mechanisms(value: str) -> frozenset[str]:
    found = frozenset(each.upper().removesuffix("://") for each in items(value))
    if not found or not found <= MECHANISMS:
        known = ", ".join(sorted(each.lower() for each in MECHANISMS))
        raise ValueError(f"expected some of {known}, comma separated")
    return found


def _lifetime(value: str) -> float:
    seconds = duration(value)
    if seconds < _SHORTEST_LIFETIME:
        raise ValueError("expected at least a minute, such as 720h")
    return seconds


@dataclass(frozen=True, kw_only=True)
class WebhookConfig(Common):
    """What is injected, and the webhook's certificate."""

    name: str = variable("admission-webhook-k8s", text, "the name in logs, and of the MutatingWebhookConfiguration")
    service_name: str = variable("default", text, "the Service that the API server calls")
    namespace: str = variable("default", text, "the namespace of that Service")
    listen_on: str = variable("tcp://:443", url, "where to serve HTTPS: POST /mutate, GET /ready")
    annotation: str = variable("networkservicemesh.io", text, "the annotation that requests wires")
    mechanisms: frozenset[str] = variable(
        "kernel", _mechanisms, "mechanisms that the cluster supports: kernel, memif, vfio; others are rejected"
    )
    domains: tuple[str, ...] = variable(
        "", items, "other domains whose services may be requested as service@domain: domain,..; *: any; empty: none"
    )
    labels: dict[str, str] = variable(
        "", pairs, "labels of pods that get clients, key:value,..; a pod's own take precedence"
    )
    nsurl_env_name: str = variable("NSM_NETWORK_SERVICES", text, "the client's variable for the annotation's value")
    container_images: tuple[Image, ...] = variable("", images, "images of clients that maintain wires")
    init_container_images: tuple[Image, ...] = variable(
        "", images, "images of clients that request wires once and exit"
    )
    container_prefix: str = variable(
        "", _prefix, "prefix of the clients' container names, which are those of their images"
    )
    envs: tuple[tuple[str, str], ...] = variable("", _variables, "more variables of clients, NAME=value,..")
    sidecars: str = variable(
        AUTO,
        _sidecars,
        "native: init containers that keep running; classic: ordinary containers; auto: as the cluster supports",
    )
    sidecars_tell_ready: bool = variable(
        "true", flag, "whether the client images support NSM_READY_FILE; if not, the init images wait for the wires"
    )
    sidecars_readiness_probe: bool = variable(
        "false", flag, "whether a pod is Ready only while its clients have all their wires and DNS names"
    )
    sidecars_names: bool = variable(
        "true", flag, "resolve names of wires in pods whose client is not root: it gets a writable resolv.conf"
    )
    sidecars_follow: bool = variable(
        "true", flag, "let clients follow the annotation of their running pod: kubectl annotate changes its wires"
    )
    sidecar_user: Json = variable("", _user, "the uid, or uid:gid, of clients; empty: that of the pod or the image")
    sidecar_limits_memory: str = variable("80Mi", _quantity, "limit of each client")
    sidecar_limits_cpu: str = variable("200m", _quantity, "limit of each client")
    sidecar_requests_memory: str = variable("40Mi", _quantity, "request of each client")
    sidecar_requests_cpu: str = variable("100m", _quantity, "request of each client")
    identity_csi_driver: str = variable(
        "csi.spiffe.io", text, "provides the Workload API's socket if a namespace forbids host paths"
    )
    csi_everywhere: bool = variable(
        "false",
        flag,
        "provide both sockets by CSI drivers even if host paths are allowed; for SPIRE sockets at any path",
    )
    webhook_mode: str = variable(SPIRE, _mode, "the source of the certificate: spire or selfregister")
    cert_file_path: str = variable("", text, "the server's certificate and its chain (PEM), instead of the mode's")
    key_file_path: str = variable("", text, "its key (PEM)")
    ca_bundle_file_path: str = variable("", text, "its authorities (PEM), registered by selfregister")
    certificate_lifetime: float = variable("720h", _lifetime, "lifetime of certificates that selfregister creates")
    kubelet_qps: int = variable("50", number, "accepted for compatibility; there is no such limit")

    @property
    def host(self) -> str:
        """The host name that the API server uses."""
        return f"{self.service_name}.{self.namespace}.svc"

    @property
    def reads_files(self) -> bool:
        """Whether the certificate is read from files."""
        return bool(self.cert_file_path)

    def misfits(self) -> Iterator[str]:
        """Conflicting or incomplete variables."""
        yield from super().misfits()
        if not self.container_images and not self.init_container_images:
            yield "no images are configured: set NSM_CONTAINER_IMAGES to the image of nsm nsc"
        for name, _ in self.envs:
            if (fault := fault_of(name, "nsc")) is not None:
                yield f"NSM_ENVS: {fault}"
        for image in (*self.container_images, *self.init_container_images):
            if len(name := self.container_prefix + image.container) > _LONGEST_NAME:
                yield f"{name!r} is too long for a container's name; shorten NSM_CONTAINER_PREFIX"
        if bool(self.cert_file_path) != bool(self.key_file_path):
            yield "NSM_CERT_FILE_PATH and NSM_KEY_FILE_PATH go together: set both or neither"
        if self.webhook_mode == SELF_REGISTER and self.reads_files and not self.ca_bundle_file_path:
            yield "selfregister with a certificate from files needs NSM_CA_BUNDLE_FILE_PATH"
        if self.sidecars_readiness_probe and not self.sidecars_tell_ready:
            yield "NSM_SIDECARS_READINESS_PROBE needs images that support NSM_READY_FILE (NSM_SIDECARS_TELL_READY)"

    def _named(self, found: tuple[Image, ...]) -> tuple[Image, ...]:
        return tuple(replace(image, container=self.container_prefix + image.container) for image in found)

    def recipe(self, *, native: bool) -> Recipe:
        """The recipe for a cluster with or without native sidecars.

        Raises `InvalidRequest` if two containers of one pod would have the same name.
        """
        first, others = (
            {image.container for image in each} for each in (self.init_container_images, self.container_images)
        )
        if (twice := first & others) and not (native and self.sidecars_tell_ready):
            raise InvalidRequest(
                f"an image of NSM_CONTAINER_IMAGES and one of NSM_INIT_CONTAINER_IMAGES are called {min(twice)!r}; "
                "their containers need different names"
            )
        return Recipe(
            annotation=self.annotation,
            url_variable=self.nsurl_env_name,
            images=self._named(self.container_images),
            init_images=self._named(self.init_container_images),
            variables=self.envs,
            labels=self.labels,
            limits={"cpu": self.sidecar_limits_cpu, "memory": self.sidecar_limits_memory},
            requests={"cpu": self.sidecar_requests_cpu, "memory": self.sidecar_requests_memory},
            user=self.sidecar_user,
            identity_driver=self.identity_csi_driver,
            csi_everywhere=self.csi_everywhere,
            native=native and bool(self.container_images),
            tells_ready=self.sidecars_tell_ready,
            served=Served(self.mechanisms, self.domains),
            readiness_probe=self.sidecars_readiness_probe,
            names=self.sidecars_names,
            follows=self.sidecars_follow,
        )
