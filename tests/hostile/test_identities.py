"""Nobody becomes somebody else at `nsm identity`, and nobody keeps it from others."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ASKER = HERE.parent / "system" / "cgroup_asker.py"
IN_A_PID_NAMESPACE = ["unshare", *([] if os.getuid() == 0 else ["-Ur"]), "--pid", "--fork", "--mount-proc"]


def test_who_takes_a_process_id_again_is_not_who_had_it(tmp_path):
    """The number is that of an entry whose process has ended; the kernel is made to give it out at once."""
    command = [*IN_A_PID_NAMESPACE, sys.executable, HERE / "pid_reuse.py", tmp_path / "s", ASKER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "spiffe://test.mesh/victim"
    assert "no identity is issued to this caller" in second
    assert "the process that its entry was written for has ended" in second
