"""Options, errors and exit codes that all operator commands share."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nsm.operate.command import parser_of, run
from nsm.operate.errors import OperatorError, UsageError


@pytest.fixture
def view():
    """A server that answers by path."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            status, kind, body = ANSWERS[self.path]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ANSWERS = {
    "/good": (200, "application/json", '{"a": 1}'),
    "/good?service=a+b": (200, "application/json", '{"a": 2}'),
    "/text": (200, "text/plain", "hello"),
    "/missing": (404, "application/json", '{"error": "no such wire"}'),
    "/broken": (500, "text/plain", "oh"),
    "/events": (200, "text/event-stream", ': hi\n\nevent: wire\ndata: {"id":\ndata: 1}\n\ndata: 2\n\n'),
}


def ran(words, work):
    return run(parser_of("test", "Tests."), words, work)


def test_the_exit_code_is_that_of_the_work():
    assert ran(["--view", "http://h"], lambda command: 1) == 1


@pytest.mark.parametrize(("error", "code"), [(OperatorError("no mesh"), 3), (UsageError("which?"), 2)])
def test_an_error_is_one_line_on_standard_error(error, code, capsys):
    def work(command):
        raise error

    assert ran(["--view", "http://h"], work) == code
    assert capsys.readouterr().err == f"nsm test: {error}\n"


@pytest.mark.parametrize(
    "words",
    [["--view", "ftp://h"], ["--view", "http://h", "--url", "unix:///x"], ["-o", "yaml"], ["--wat"], ["--name", "a/b"]],
)
def test_wrong_usage_has_an_exit_code_of_its_own(words):
    try:
        code = ran(words, lambda command: command.target.http().get("/") and 0)
    except SystemExit as ended:
        code = ended.code
    assert code == 2


def test_a_mesh_that_is_not_up_cannot_be_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path)
    assert ran([], lambda command: command.target.http().get("/") and 0) == 3
    assert "mesh 'default' is not up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "query", "answer"), [("/good", {}, {"a": 1}), ("/good", {"service": "a b"}, {"a": 2})]
)
def test_a_view_is_asked_over_http(view, path, query, answer):
    seen = []
    assert ran(["--view", view], lambda command: seen.append(command.target.http().get(path, **query)) or 0) == 0
    assert seen == [answer]


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/missing", 2, "answered with 404: no such wire"),
        ("/broken", 3, "answered with 500: oh"),
        ("/text", 3, "is not JSON; is that the URL of a view?"),
    ],
)
def test_a_refusal_of_the_view_is_shown(view, path, code, said, capsys):
    assert ran(["--view", view], lambda command: command.target.http().get(path) and 0) == code
    assert said in capsys.readouterr().err


def test_events_of_a_view_arrive_with_their_kind(view):
    seen = []
    ran(["--view", view], lambda command: seen.extend(command.target.http().events("/events")) or 0)
    assert seen == [("wire", {"id": 1}), ("message", 2)]


def test_a_view_behind_a_unix_socket(tmp_path):
    path, body = str(tmp_path / "s"), json.dumps({"a": 1}).encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer():
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        thread = threading.Thread(target=answer)
        thread.start()
        seen = []
        assert (
            ran(["--view", f"unix://{path}"], lambda command: seen.append(command.target.http().get("/good")) or 0) == 0
        )
        thread.join()
    assert seen == [{"a": 1}]


def test_a_view_that_is_not_there_cannot_be_reached(tmp_path, capsys):
    assert ran(["--view", f"unix://{tmp_path}/s"], lambda command: command.target.http().get("/good") and 0) == 3
    assert "cannot be reached: No such file or directory" in capsys.readouterr().err


def test_a_view_that_does_not_answer_is_given_up(tmp_path, capsys):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        words = ["--view", f"unix://{path}", "--timeout", "0.05"]
        assert ran(words, lambda command: command.target.http().get("/good") and 0) == 3
    assert "does not answer within 0.05 s" in capsys.readouterr().err
