"""Which processes came from a workload."""

import subprocess
from contextlib import ExitStack, contextmanager

from nsm.mesh import namespaces
from nsm.mesh.namespaces import Mark

MARK = Mark(b"MESH_WORKLOAD=a\0", b"a mount that nothing has")


@contextmanager
def process(**environment):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"PATH": "/usr/bin:/bin", **environment}) as running:
        yield running.pid


def test_mounts_that_processes_share_are_read_once(monkeypatch):
    """`nsm mesh kill --namespaces` read those of all processes of the machine, one after the other."""
    read, content = [], namespaces._content
    monkeypatch.setattr(namespaces, "_content", lambda path: (read.append(path), content(path))[1])
    with ExitStack() as stack:
        seen, pids = namespaces._Mounts([MARK]), [stack.enter_context(process()) for _ in range(3)]
        assert [seen.is_marked(pid) for pid in pids] == [False] * 3
    assert sum(path.endswith("mountinfo") for path in read) == 1


def test_a_process_is_marked_by_its_environment_or_its_mounts():
    with process(MESH_WORKLOAD="a") as marked, process(MESH_WORKLOAD="ab") as other:
        assert [namespaces._Mounts([MARK]).is_marked(pid) for pid in (marked, other)] == [True, False]
        assert namespaces._Mounts([Mark(b"none\0", b" /proc ")]).is_marked(other)
