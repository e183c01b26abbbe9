"""Local meshes of this user: running ones, and leftovers of killed ones."""

from __future__ import annotations

from collections.abc import Iterator

from nsm.mesh.rundir import MeshCommandError, RunDir

from .model import Finding, ok, warning


def meshes() -> Iterator[Finding]:
    """Check the folder of this user's meshes."""
    base = RunDir.of("any").path.parent
    try:
        names = sorted(entry.name for entry in base.iterdir() if entry.is_dir())
    except OSError:
        names = []
    findings = [finding for name in names if (finding := _mesh(name)) is not None]
    yield from findings or [ok("meshes", "no local mesh, and no leftovers")]


def _mesh(name: str) -> Finding | None:
    try:
        run = RunDir.of(name)
    except MeshCommandError:  # not ours
        return None
    if run.is_held():
        return ok(f"mesh-{name}", f"local mesh {name!r} runs")
    hint = f"nsm mesh down --name {name}"
    return warning(f"mesh-{name}", f"local mesh {name!r} was killed and left {run.path}", hint)
