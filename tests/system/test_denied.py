"""A socket that a process may not use: what it is told, as a container of another group sees it."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from nsm.chains.model.denied import denied
from nsm.chains.transport.frames import not_reached

pytestmark = pytest.mark.system

USER = 65532
OPENED = "grant access on the server's side: NSM_SOCKET_GROUP, NSM_SOCKET_MODE; in Kubernetes by open-socket"


@pytest.fixture
def served():
    """A socket in a folder of its own: anybody may look for it, unless a test says otherwise."""
    folder = Path(tempfile.mkdtemp(prefix="nsm-denied-"))
    folder.chmod(0o755)
    path = folder / "nsm.io.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o660)
        yield path
    shutil.rmtree(folder)


def as_user(group, work):
    """What `work` returns, a text, in a process of `USER` and of one group."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(USER, USER, USER)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def reach(path):
    """How an attempt to connect fails; empty if it does not."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError as error:
            return not_reached(error, f"unix://{path}").detail
    return ""


def test_a_pod_whose_group_may_not_enter_the_managers_folder_is_told_which_group_may(served):
    """As an image's user is: the kubelet takes it, and group 0."""
    os.chown(served.parent, 0, USER)
    served.parent.chmod(0o770)
    assert as_user(0, lambda: reach(served)) == (
        f"cannot reach unix://{served}: Permission denied: this process (user {USER}, group 0) may not enter "
        f"{served.parent} (user 0, group {USER}, mode 0770); run it in group {USER} "
        f"(securityContext.runAsGroup: {USER} of a pod or container), or {OPENED}"
    )
    os.chown(served, 0, USER)
    assert as_user(USER, lambda: reach(served)) == ""


def test_a_socket_that_only_its_group_may_write_says_which(served):
    told = as_user(USER, lambda: reach(served))
    assert f"may not write {served} (user 0, group 0, mode 0660); run it in group 0 " in told


def test_where_no_group_would_help_it_is_the_owner_who_has_to_open_it(served):
    served.chmod(0o600)
    assert as_user(0, lambda: denied(str(served))).endswith(f"(user 0, group 0, mode 0600); {OPENED}")


def test_who_is_barred_no_more_is_told_nothing(served):
    served.chmod(0o666)
    assert as_user(USER, lambda: denied(str(served)) + reach(served)) == ""
    assert denied(str(served.parent / "nobody")) == ""
