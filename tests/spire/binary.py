"""The programs of SPIRE: built from their Go modules once, and kept in the user's cache.

`programs/` is the Go module, which has no code of ours: it says which versions. A build takes 5 to 8 minutes.
"""

import shutil
from pathlib import Path

from tests.cluster import images, modules

MODULE = Path(__file__).parent / "programs"
SPIRE, CONTROLLER_MANAGER = "github.com/spiffe/spire", "github.com/spiffe/spire-controller-manager"
NAMES = ["spire-server", "spire-agent", "spire-controller-manager"]
TAGS = "netgo,osusergo,sqlite_omit_load_extension"
"""By these the programs, which need C for the server's SQLite, are static all the same."""


def image(name):
    return f"localhost/nsm-test/{name}:1"


def programs(say=print):
    """The folder with the programs of `NAMES`, and `crds.yaml`: what the controller manager watches.

    Raises `modules.CannotBuild`.
    """
    what = f"SPIRE {modules.version(MODULE, SPIRE)}, once, 5 to 8 minutes on two processors,"
    return modules.built("spire", MODULE, make, what, say)


def make(go, place):
    """Build them into the folder `place`."""
    if shutil.which("cc") is None:
        raise modules.CannotBuild(
            "no C compiler, which SPIRE's database needs: scripts/system-packages spire installs one"
        )
    go.build(place, "-linkmode external -extldflags -static", "-tags", TAGS, "tool", CGO_ENABLED="1")
    (place / "cmd").rename(place / "spire-controller-manager")
    crds = sorted((go.folder_of(CONTROLLER_MANAGER) / "config/crd/bases").glob("*_clusterspiffeids.yaml"))
    (place / "crds.yaml").write_text("".join(each.read_text() for each in crds))


def write_images(folder):
    """Write archives of their images, each with a shell beside the program, into `folder`; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    built, busybox = programs(), Path(shutil.which("busybox"))
    archives = []
    for name in NAMES:
        files = [("bin/busybox", busybox), (f"bin/{name}", built / name)]
        images.write(folder / f"{name}.tar", image(name), files, [f"/bin/{name}"], links=["sh", "kill", "pidof", "cat"])
        archives.append(folder / f"{name}.tar")
    return archives
