"""Calls of the kernel: what they raise, and that no other file makes them by itself."""

import errno
import os
from pathlib import Path

import pytest

from nsm.chains import libc

ROOT = Path(__file__).parents[2]


def test_a_call_that_the_kernel_refuses_says_what_could_not_be_done_and_why(tmp_path):
    with pytest.raises(OSError, match=r"cannot unmount the folder: Invalid argument") as raised:
        libc.unmount(str(tmp_path), what="unmount the folder")
    assert raised.value.errno == errno.EINVAL
    with pytest.raises(OSError, match=r"\[Errno 9\] Bad file descriptor"):
        libc.setns(-1, libc.CLONE_NEWNET)
    with pytest.raises(FileNotFoundError):
        libc.statx(str(tmp_path / "nothing"), 0)


def test_a_system_call_is_made_by_its_number():
    number = {"x86_64": 39, "aarch64": 172}[os.uname().machine]  # getpid(2)
    assert libc.syscall(number) == os.getpid()
    with pytest.raises(OSError, match="cannot do it: Function not implemented"):
        libc.syscall(100_000, what="do it")


def test_a_thread_s_name_is_what_others_see():
    before = Path("/proc/self/comm").read_bytes()
    libc.prctl(libc.PR_SET_NAME, b"renamed")
    assert Path("/proc/thread-self/comm").read_text() == "renamed\n"
    libc.prctl(libc.PR_SET_NAME, before.strip())


def test_the_c_library_is_opened_in_one_place():
    parts = ("apis", "chains", "services", "forwarder-kernel", "forwarder-vpp", "webhook")
    opened = [path for part in parts for path in (ROOT / part).rglob("*.py") if "CDLL(" in path.read_text()]
    assert [path.relative_to(ROOT).as_posix() for path in opened] == ["chains/nsm/chains/libc.py"]
