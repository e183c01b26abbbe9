"""The programs of Kubernetes: built from their Go modules once, and kept in the user's cache.

`kubernetes/` is the Go module. What it gives is one file that is each of the programs by its name, and `pause`, the
program of a pod's sandbox. A build takes 9 to 15 minutes and 3 GiB; a change of ours alone less than one.
"""

import hashlib
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

from . import golang

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


class CannotBuild(Exception):
    """There is no Go, or it failed; says what to do."""


def programs(say=print):
    """The folder with the programs of `NAMES` and `pause`; builds them if they are not in the cache."""
    folder = cache() / f"kubernetes-{key()}"
    if not folder.is_dir():
        say(f"building Kubernetes {version()} into {folder}; once, 9 to 15 minutes on two processors")
        build(folder, say)
    return folder


def cache():
    """Where the project keeps what takes long to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nsm"


def key():
    """Changes with everything that the programs are made of."""
    digest = hashlib.sha256(platform.machine().encode())
    for file in sorted([MODULE / "go.mod", MODULE / "go.sum", *MODULE.rglob("*.go")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def version():
    """The version of Kubernetes that go.mod names, such as `v1.34.4`."""
    return re.search(r"k8s.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text())[1]


def build(folder, say=print):
    """Build into `folder`, which is there only once all of it is. Raises `CannotBuild`."""
    try:
        go = golang.go(cache(), say)
    except golang.NoGo as problem:
        raise CannotBuild(str(problem)) from problem
    major, minor, _ = version().removeprefix("v").split(".")
    about = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    settings = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in about.items())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as made:
        place = Path(made, "programs")
        place.mkdir()
        done = subprocess.run(
            [
                go,
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                f"-s -w {settings}",
                "-o",
                f"{place}/",
                "./...",
            ],
            cwd=MODULE,
            # a newer Go than the machine's is fetched by the one that is there, if go.mod asks for it
            env={"GOTOOLCHAIN": "auto", **os.environ, "CGO_ENABLED": "0"},
            check=False,
        )
        if done.returncode:
            raise CannotBuild(f"go build failed in {MODULE}; see above")
        for name in NAMES:
            (place / name).symlink_to("nsm-kubernetes")
        place.rename(folder)
