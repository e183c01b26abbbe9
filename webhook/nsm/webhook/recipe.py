"""What is injected into every pod that asks for wires: the same for the whole cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .annotation import EVERYTHING, Served
from .images import Image
from .kinds import Json


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How clients are injected."""

    annotation: str
    """The key of the annotation that asks for wires."""
    url_variable: str
    """The variable that tells a client its URLs."""
    images: tuple[Image, ...]
    """Clients that keep wires."""
    init_images: tuple[Image, ...] = ()
    """Clients that ask once, before the pod's own containers start."""
    variables: tuple[tuple[str, str], ...] = ()
    """More variables for them; one of a name that the injection would set takes its place."""
    labels: Mapping[str, str]
    """Labels of pods that have clients; a pod's own win."""
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    user: Json = field(default_factory=dict)
    """`runAsUser` and `runAsGroup` of clients, whatever the pod says for its own containers; empty: it counts."""
    identity_driver: str
    """The CSI driver that brings the identity's socket where host paths are forbidden."""
    csi_everywhere: bool = False
    """Whether CSI drivers bring both sockets also where host paths are allowed."""
    native: bool
    """Whether clients are init containers that go on running (Kubernetes 1.29), or stand beside the pod's own."""
    served: Served = EVERYTHING
    """What the cluster's clients, managers and forwarders can do; what they cannot is refused."""
    tells_ready: bool = True
    """Whether `images` tell by a file that their wires are up (``NSM_READY_FILE``), or `init_images` must wait."""
    readiness_probe: bool = False
    """Whether a pod is Ready only while its clients have all their wires."""
    names: bool = True
    """Whether pods get a resolv.conf that their clients may write (``NSM_RESOLV_CONF_FROM``)."""

    follows: bool = True
    """Whether clients follow the annotation of their running pod (``NSM_NETWORK_SERVICES_FILE``)."""

    @property
    def follows_pods(self) -> bool:
        """Whether clients get the file: it has to be our own that are injected."""
        return self.follows and self.tells_ready and self.url_variable == "NSM_NETWORK_SERVICES"

    @property
    def keeps_names(self) -> bool:
        """Whether clients need help with names: root does not, and it has to be our own that ask first."""
        asks_first = self.native or bool(self.init_images)
        is_off = ("NSM_LOCAL_DNS_SERVER_ENABLED", "false") in self.variables
        is_ours = self.names and self.tells_ready and bool(self.images)
        return is_ours and asks_first and not is_off and self.user.get("runAsUser") != 0

    @property
    def marker(self) -> str:
        """The annotation that names the containers that were injected."""
        return self._beside_annotation("injected")

    @property
    def namespace_label(self) -> str:
        """The label that says that a namespace has the annotation, for selectors: they see labels only."""
        return self._beside_annotation("annotated")

    def _beside_annotation(self, name: str) -> str:
        return f"{self.annotation}-{name}" if "/" in self.annotation else f"{self.annotation}/{name}"
