"""Helm, built from its Go module once and kept in the user's cache: a minute, beside the programs of Kubernetes."""

from pathlib import Path

from . import modules

MODULE = Path(__file__).parent / "helm"


def program(say=print):
    """The path of `helm`. Raises `modules.CannotBuild`."""
    return modules.built("helm", MODULE, make, f"Helm {version()}, once, a minute or more,", say) / "helm"


def version():
    """The version that go.mod names, such as `v3.19.0`."""
    return modules.version(MODULE, "helm.sh/helm/v3")


def make(go, place):
    """Build it into the folder `place`."""
    go.build(
        place, f"-X helm.sh/helm/v3/internal/version.version={version()}", "helm.sh/helm/v3/cmd/helm", CGO_ENABLED="0"
    )
