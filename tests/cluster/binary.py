"""The programs of Kubernetes: built from their Go modules once, and kept in the user's cache.

`kubernetes/` is the Go module. What it gives is one file that is each of the programs by its name, and `pause`, the
program of a pod's sandbox. A build takes 5 to 18 minutes and 3 GiB; a change of ours alone less than one.
"""

from pathlib import Path

from . import modules

MODULE = Path(__file__).parent / "kubernetes"
NAMES = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
]


def programs(say=print):
    """The folder with the programs of `NAMES` and `pause`; builds them if they are not in the cache.

    Raises `modules.CannotBuild`.
    """
    what = f"Kubernetes {version()}, once, 5 to 18 minutes on two processors,"
    return modules.built("kubernetes", MODULE, make, what, say)


def version():
    """The version of Kubernetes that go.mod names, such as `v1.34.4`."""
    return modules.version(MODULE, "k8s.io/kubernetes")


def make(go, place):
    """Build them into the folder `place`."""
    major, minor, _ = version().removeprefix("v").split(".")
    about = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    settings = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in about.items())
    go.build(place, settings, "./...", CGO_ENABLED="0")
    for name in NAMES:
        (place / name).symlink_to("nsm-kubernetes")
