"""Runs a command as an ordinary user, also where the Python and the checkout lie in folders only root may enter.

Called as ``python ordinary_user.py COMMAND...`` by root: in a mount namespace of its own, folders on the way to what
the command needs that are closed to others are replaced by open ones with only that in it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NOBODY = 65534
SPARE = Path("/media")
"""Where the folders that it needs meanwhile are: nowhere else, so that they go with the mount namespace."""


def needed():
    """What the command reads: the interpreter, the environment, the checkout."""
    root = Path(__file__).resolve().parents[2]
    return {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), root}


def closed_ancestor(path):
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def open_up(folder, paths):
    """Replace `folder` by an open one that shows only what is needed of it."""
    aside = tempfile.mkdtemp(dir=SPARE)
    mount("--rbind", folder, aside)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for path in paths:
        child = path.relative_to(folder).parts[0]
        (folder / child).mkdir(exist_ok=True)
        mount("--rbind", Path(aside) / child, folder / child)


def main(command):
    paths = needed()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", SPARE)
    while closed := {folder for path in paths if (folder := closed_ancestor(path)) is not None}:
        folder = min(closed, key=lambda folder: len(folder.parts))
        open_up(folder, [path for path in paths if folder in path.parents])
    home = tempfile.mkdtemp(dir=SPARE)
    os.chown(home, NOBODY, NOBODY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.environ.update(HOME=home, XDG_RUNTIME_DIR=home)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--inside":
        main(sys.argv[2:])
    else:
        inside = [sys.executable, __file__, "--inside", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *inside])
