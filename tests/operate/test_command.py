"""Options, errors and exit codes that all operator commands share."""

import asyncio
import socket

import pytest

from nsm.chains.core import Conflict, NotFound, Unavailable
from nsm.operate.command import parser_of, run
from nsm.operate.errors import OperatorError, UsageError


def ran(words, work):
    return run(parser_of("test", "Tests."), words, work)


def asks(command):
    """Read the wires of the target."""

    async def work():
        async with command.target.source() as source:
            await source.wires()

    asyncio.run(work())
    return 0


def test_the_exit_code_is_that_of_the_work():
    assert ran(["--view", "http://h"], lambda command: 1) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperatorError("no mesh"), 3),
        (UsageError("which?"), 2),
        (Unavailable("no view"), 3),
        (NotFound("no wire"), 2),
        (Conflict("two wires"), 2),
    ],
)
def test_an_error_is_one_line_on_standard_error(error, code, capsys):
    def work(command):
        raise error

    assert ran(["--view", "http://h"], work) == code
    assert capsys.readouterr().err == f"nsm test: {error}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--view", "ftp://h"],
        ["--view", "http://h", "--url", "unix:///x"],
        ["-o", "yaml"],
        ["--wat"],
        ["--name", "a/b"],
        ["--timeout", "-1"],
    ],
)
def test_wrong_usage_has_an_exit_code_of_its_own(words):
    try:
        code = ran(words, lambda command: 0)
    except SystemExit as ended:
        code = ended.code
    assert code == 2


def test_a_mesh_that_is_not_up_cannot_be_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path)
    assert ran([], asks) == 3
    assert "mesh 'default' is not up" in capsys.readouterr().err


@pytest.mark.parametrize("components", [[], [{"name": "view", "pid": 7, "status": 1}]])
def test_a_mesh_without_a_view_cannot_be_read(components, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path)
    monkeypatch.setattr("nsm.mesh.control.ask", lambda *_, **__: {"components": components})
    (tmp_path / "default").mkdir()
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(tmp_path / "default" / "control"))
        supervisor.listen()
        assert ran(["--timeout", "0.05"], asks) == 3
    assert "mesh 'default' has no view; `nsm mesh logs view` shows what it last said" in capsys.readouterr().err


def test_a_view_that_is_not_there_cannot_be_reached(tmp_path, capsys):
    assert ran(["--view", f"unix://{tmp_path}/s"], asks) == 3
    assert "cannot be reached: No such file or directory" in capsys.readouterr().err


def test_a_view_that_does_not_answer_is_given_up(tmp_path, capsys):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        assert ran(["--view", f"unix://{path}", "--timeout", "0.05"], asks) == 3
    assert "did not answer within 0.05 s" in capsys.readouterr().err


def test_a_manager_without_an_identity_for_us_cannot_be_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{tmp_path}/agent")
    monkeypatch.setattr("nsm.chains.logs.set_up", lambda *_: None)  # of the whole process, which has other tests
    monkeypatch.setattr("nsm.chains.tools.session._IDENTITY_TIMEOUT", 0.05)
    assert ran(["--url", f"unix://{tmp_path}/m"], asks) == 3
    assert "issues no identity" in capsys.readouterr().err
