"""The configuration of injections, for the whole cluster."""

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
    """The key of the annotation that requests wires."""
    url_variable: str
    """The client's variable for its URLs."""
    images: tuple[Image, ...]
    """Clients that maintain wires."""
    init_images: tuple[Image, ...] = ()
    """Clients that request wires once, before the pod's own containers start."""
    variables: tuple[tuple[str, str], ...] = ()
    """More variables for clients; they override those that the injection sets."""
    labels: Mapping[str, str]
    """Labels of pods with clients; a pod's own take precedence."""
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    user: Json = field(default_factory=dict)
    """`runAsUser` and `runAsGroup` of clients, overriding the pod's; empty: the pod's."""
    identity_driver: str
    """The CSI driver for the identity's socket if host paths are forbidden."""
    csi_everywhere: bool = False
    """Whether CSI drivers provide both sockets even if host paths are allowed."""
    native: bool
    """Whether clients are init containers that keep running (Kubernetes 1.29), or ordinary containers."""
    served: Served = EVERYTHING
    """The wires that the cluster supports; others are refused."""
    tells_ready: bool = True
    """Whether `images` signal that their wires are up by a file (``NSM_READY_FILE``), or `init_images` must wait."""
    readiness_probe: bool = False
    """Whether a pod is Ready only while its clients have all their wires."""
    names: bool = True
    """Whether pods get a resolv.conf that their clients can write (``NSM_RESOLV_CONF_FROM``)."""

    follows: bool = True
    """Whether clients follow the annotation of their running pod (``NSM_NETWORK_SERVICES_FILE``)."""

    @property
    def follows_pods(self) -> bool:
        """Whether clients get the file: it has to be our own that are injected."""
        return self.follows and self.tells_ready and self.url_variable == "NSM_NETWORK_SERVICES"

    @property
    def keeps_names(self) -> bool:
        """Whether pods are prepared for DNS: not for root, and only if our own clients start first."""
        asks_first = self.native or bool(self.init_images)
        is_off = ("NSM_LOCAL_DNS_SERVER_ENABLED", "false") in self.variables
        is_ours = self.names and self.tells_ready and bool(self.images)
        return is_ours and asks_first and not is_off and self.user.get("runAsUser") != 0

    @property
    def marker(self) -> str:
        """The annotation that lists the injected containers."""
        return self._beside_annotation("injected")

    @property
    def namespace_label(self) -> str:
        """The label of annotated namespaces, for selectors, which see only labels."""
        return self._beside_annotation("annotated")

    def _beside_annotation(self, name: str) -> str:
        return f"{self.annotation}-{name}" if "/" in self.annotation else f"{self.annotation}/{name}"
