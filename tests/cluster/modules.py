"""Programs out of a Go module of ours: built once, and kept in the user's cache by what they are made of."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

from . import golang


class CannotBuild(Exception):
    """There is no Go, or it failed; says what to do."""


def cache():
    """Where the project keeps what takes long to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nsm"


def key(module):
    """Changes with everything that the programs of the module in that folder are made of."""
    digest = hashlib.sha256(platform.machine().encode())
    for file in sorted([module / "go.mod", module / "go.sum", *module.rglob("*.go")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def version(module, name):
    """The version of the module `name` that go.mod of a module says, such as `v1.34.4`."""
    return re.search(rf"\b{re.escape(name)} (v\S+)", (module / "go.mod").read_text())[1]


class Go:
    """Go, called in the folder of a module."""

    def __init__(self, module, say):
        try:
            self._go = golang.go(cache(), say)
        except golang.NoGo as problem:
            raise CannotBuild(str(problem)) from problem
        self._module = module

    def build(self, into, settings, *words, **environment):
        """Build packages into a folder; `settings` are the linker's, `words` further options and the packages."""
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {settings}".strip(), "-o", f"{into}/"]
        self._run("build", *flags, *words, **environment)

    def folder_of(self, name):
        """Where the files of the module `name` are, which is fetched if they are not there."""
        self._run("mod", "download", name)
        return Path(self._run("list", "-m", "-f", "{{.Dir}}", name, stdout=subprocess.PIPE).stdout.strip())

    def _run(self, *words, stdout=None, **environment):
        # a newer Go than the machine's is fetched by the one that is there, if go.mod asks for it
        environment = {"GOTOOLCHAIN": "auto", **os.environ, **environment}
        done = subprocess.run(
            [self._go, *words], cwd=self._module, env=environment, stdout=stdout, text=True, check=False
        )
        if done.returncode:
            raise CannotBuild(f"go {words[0]} failed in {self._module}; see above")
        return done


def built(name, module, make, what, say=print):
    """The folder in the cache with what `make(go, place)` puts into `place`; made if it is not there.

    `what` says what is built and how long that takes. Raises `CannotBuild`.
    """
    folder = cache() / f"{name}-{key(module)}"
    if not folder.is_dir():
        say(f"building {what} into {folder}")
        with golang.filled(folder) as place:
            make(Go(module, say), place)
    return folder
