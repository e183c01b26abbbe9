"""An authority in a file: whole, or not there."""

import os

import pytest

from nsm.chains.core import InvalidRequest
from nsm.services.identity.authority_file import authority_at


def test_a_disk_that_is_full_leaves_no_file_that_stops_the_next_start(tmp_path, monkeypatch):
    file = str(tmp_path / "a.pem")
    with monkeypatch.context() as disk:
        original, full = os.open, lambda _path, _flags, _mode: original("/dev/full", os.O_WRONLY)
        disk.setattr(os, "open", lambda path, *how: os.close(original(path, *how)) or full(path, *how))
        with pytest.raises(InvalidRequest, match="cannot be used: .*No space left"):
            authority_at(file, "test.mesh")
    assert authority_at(file, "test.mesh").certificate == authority_at(file, "test.mesh").certificate
    assert os.listdir(tmp_path) == ["a.pem"]
    assert os.stat(file).st_mode & 0o777 == 0o600
