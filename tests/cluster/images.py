"""Small images that are made without an engine: of one static program each."""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

PAUSE = "localhost/nsm/pause:1"
BUSYBOX = "localhost/nsm/busybox:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_all(folder, binaries):
    """Write the archives of `PAUSE` and `BUSYBOX` (a shell and its commands) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "pause.tar", PAUSE, [("pause", binaries / "pause")], ["/pause"])
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    names = ["sh", "sleep", "ls", "cat", "ip", "ping", "nc", "id", "true", "touch", "test", "nslookup", "grep"]
    write(folder / "busybox.tar", BUSYBOX, [("bin/busybox", busybox)], ["/bin/sh"], links=names)


def write(archive, name, files, entrypoint, links=()):
    """Write an archive such as `docker save` makes: one layer with `files`, and `links` to the first of them."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "run", "sys", "dev"):
            about = tarfile.TarInfo(folder)
            about.type, about.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(about)
        about = tarfile.TarInfo("tmp")
        about.type, about.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(about)
        for inside, file in files:
            about = tarfile.TarInfo(inside)
            about.mode, about.size = 0o755, file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(about, content)
        for link in links:
            about = tarfile.TarInfo(f"bin/{link}")
            about.type, about.linkname = tarfile.SYMTYPE, f"/{files[0][0]}"
            tar.addfile(about)
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for inside, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            about = tarfile.TarInfo(inside)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
