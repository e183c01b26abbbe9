"""`nsm check` for a person and for programs, and what it advises; what is tried for real is in tests/system."""

import contextlib
import errno
import io
import json
import os
import socket
import stat

import pytest

from nsm.mesh.check import cli, kernel, packages, programs, user
from nsm.mesh.check.identity import identity
from nsm.mesh.check.kernel import PROBES, hint_for, hint_for_namespaces
from nsm.mesh.check.model import Group, State, error, ok, warning
from nsm.mesh.check.node import manager
from nsm.mesh.check.packages import wrong_version
from nsm.mesh.check.throw_away import NoNamespacesError, tried


@pytest.fixture(autouse=True)
def logs_of_its_own(monkeypatch):
    """The command sets up its process's logs; here they are the tests' own."""
    monkeypatch.setattr("nsm.chains.logs.set_up", lambda *_: None)


FINE, ODD, BAD = ok("a", "a is fine"), warning("b", "b is odd", "mend b"), error("c", "c is bad", "mend c")


def groups_of(monkeypatch, *findings):
    monkeypatch.setattr(cli, "GROUPS", (Group("one", lambda: iter(findings)),))


# --- the command


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ((FINE,), 0, "Everything works."),
        ((FINE, ODD), 0, "A mesh can run here, but not with every feature: see the warnings."),
        ((FINE, ODD, BAD), 1, "A mesh cannot run here: see the errors."),
    ],
)
def test_warnings_do_not_fail_errors_do(monkeypatch, capsys, findings, code, last):
    groups_of(monkeypatch, *findings)
    assert cli.main([]) == code
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_mark_a_line_and_below_it_how_to_mend(monkeypatch, capsys):
    groups_of(monkeypatch, FINE, ODD, BAD)
    cli.main([])
    assert capsys.readouterr().out.splitlines()[:7] == [
        "one",
        "---",
        "√ a is fine",
        "‼ b is odd",
        "    mend b",
        "\N{MULTIPLICATION SIGN} c is bad",
        "    mend c",
    ]


def test_json_for_programs(monkeypatch, capsys):
    groups_of(monkeypatch, FINE, BAD)
    assert cli.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "state": "error",
        "groups": [
            {
                "name": "one",
                "checks": [
                    {"name": "a", "state": "ok", "detail": "a is fine", "hint": ""},
                    {"name": "c", "state": "error", "detail": "c is bad", "hint": "mend c"},
                ],
            }
        ],
    }


def test_wrong_usage_is_two():
    with pytest.raises(SystemExit) as ended:
        cli.main(["--jsno"])
    assert ended.value.code == 2


class Out(io.StringIO):
    def __init__(self, encoding, terminal):
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "colored"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True), (False, {}, False)],
)
def test_colours_on_a_terminal_only_and_not_where_they_are_not_wanted(terminal, environment, colored):
    shown = list(cli.lines([("one", [FINE])], State.OK, Out("utf-8", terminal), environment))
    assert ("\033[" in shown[2]) == colored


def test_marks_that_any_terminal_can_show():
    shown = list(cli.lines([("one", [FINE, ODD, BAD])], State.ERROR, Out("ascii", False), {}))
    assert [line[:2] for line in shown if line[:1] not in " "][2:5] == ["ok", "!!", "no"]


def test_a_probe_that_breaks_is_a_finding_and_the_others_are_shown(monkeypatch, capsys):
    def breaks():
        yield FINE
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli, "GROUPS", (Group("one", breaks), Group("two", lambda: iter([ODD]))))
    assert cli.main([]) == 1
    out = capsys.readouterr().out
    assert "a is fine" in out
    assert "this check failed: RuntimeError('a defect')" in out
    assert "b is odd" in out


# --- namespaces and wires


@pytest.mark.parametrize(
    ("settings", "number", "told"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, errno.EPERM, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ({"user.max_user_namespaces": "0"}, errno.ENOSPC, "sysctl -w user.max_user_namespaces=15000"),
        ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, errno.EPERM, "a profile with the rule `userns,`"),
        ({"kernel.unprivileged_userns_clone": "1"}, errno.EPERM, "--security-opt seccomp=unconfined"),
        ({}, errno.ENOSPC, "user.max_net_namespaces"),
    ],
)
def test_what_to_do_where_namespaces_are_forbidden(settings, number, told):
    assert told in hint_for_namespaces(NoNamespacesError("user", number), lambda name: settings.get(name, ""))


def test_without_namespaces_there_is_one_error_and_no_wire_is_tried(monkeypatch):
    def refused():
        raise NoNamespacesError("user", errno.EPERM)

    monkeypatch.setattr(kernel, "_answers", refused)
    (found,) = kernel.namespaces()
    assert (found.state, found.detail) == (State.ERROR, "no user namespace: Operation not permitted")
    assert found.hint
    (wires,) = kernel.wires()
    assert wires.state is State.WARNING


def wires_with(monkeypatch, **numbers):
    results = {probe.name: numbers.get(probe.name.replace("-", "_"), 0) for probe in PROBES}
    monkeypatch.setattr(kernel, "_answers", lambda: {"user_namespace": False, "results": results})
    return {finding.name: finding for finding in kernel.wires()}


def test_what_every_wire_needs_is_an_error_and_what_some_need_a_warning_that_says_which(monkeypatch):
    found = wires_with(monkeypatch, veth=errno.EOPNOTSUPP, vlan=errno.EOPNOTSUPP, vxlan=errno.EPERM)
    assert (found["veth"].state, found["vlan"].state) == (State.ERROR, State.WARNING)
    assert found["vlan"].detail.endswith("no wires to a tagged uplink")
    assert "modprobe 8021q" in found["vlan"].hint
    assert "CAP_NET_ADMIN" in found["vxlan"].hint
    assert found["ipv6"].state is State.OK


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_probe_has_a_hint(probe):
    assert hint_for(probe, errno.EOPNOTSUPP)


@pytest.mark.parametrize(
    ("numbers", "program", "state", "told"),
    [
        ({}, None, State.OK, "in the kernel"),
        ({"wireguard": 95}, "#!/bin/sh\nexit 0", State.OK, "the kernel has none"),
        ({"wireguard": 95}, "#!/bin/sh\necho broken >&2; exit 1", State.WARNING, "does not run: broken"),
        ({"wireguard": 95, "tun": 13}, "#!/bin/sh\nexit 0", State.WARNING, "no tun interface for wireguard-go"),
        ({"wireguard": 95}, None, State.WARNING, "no program wireguard-go"),
    ],
)
def test_wireguard_is_in_the_kernel_or_a_program_on_a_tun_interface(
    monkeypatch, tmp_path, numbers, program, state, told
):
    monkeypatch.setenv("PATH", str(tmp_path))
    if program:
        (tmp_path / "wireguard-go").write_text(program)
        (tmp_path / "wireguard-go").chmod(0o755)
    found = wires_with(monkeypatch, **numbers)["wireguard"]
    assert (found.state, told in found.detail) == (state, True), found.detail
    assert bool(found.hint) == (state is not State.OK)


def test_a_child_that_fails_or_says_nothing_is_told():
    def raises():
        raise ValueError("inside")

    for work in (raises, lambda: os._exit(3)):
        with pytest.raises((RuntimeError, NoNamespacesError), match="inside|did not finish|namespace"):
            tried(work)


# --- this user


def test_capabilities_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(user, "_effective", lambda: 1 << 21)
    found = next(iter(user.capabilities()))
    assert found.detail == "cannot run a forwarder on a real node: CAP_NET_ADMIN missing"
    monkeypatch.setattr(user, "_effective", lambda: 1 << 21 | 1 << 12)
    assert next(iter(user.capabilities())).state is State.OK


# --- the manager


def found_at(path, **environment):
    (found,) = manager({"NSM_CONNECT_TO": f"unix://{path}", **environment})
    return found


def test_a_manager_that_listens(tmp_path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert found_at(tmp_path / "s").state is State.OK


def test_a_socket_that_was_left_a_file_and_nothing_at_all(tmp_path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(tmp_path / "s"))
    assert "nothing listens at" in found_at(tmp_path / "s").detail
    (tmp_path / "f").touch()
    assert "is not a socket" in found_at(tmp_path / "f").detail
    assert "there is no socket at" in found_at(tmp_path / "n").detail
    for name in "sfn":
        assert found_at(tmp_path / name).state is State.ERROR


def test_a_manager_on_tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert next(manager({"NSM_CONNECT_TO": url})).state is State.OK
    assert next(manager({"NSM_CONNECT_TO": url})).state is State.ERROR
    assert next(manager({"NSM_CONNECT_TO": "tcp://here"})).state is State.ERROR


def test_that_there_is_no_manager_is_a_warning_if_none_was_named():
    (found,) = manager({})
    assert found.state is State.WARNING
    assert found.hint


# --- identity


def test_that_there_is_no_workload_api_is_a_warning_if_none_was_named_and_else_an_error(tmp_path):
    assert next(identity({})).state is State.WARNING
    found = next(identity({"SPIFFE_ENDPOINT_SOCKET": f"unix://{tmp_path}/none"}))
    assert found.state is State.ERROR
    assert f"there is nothing at SPIFFE_ENDPOINT_SOCKET=unix://{tmp_path}/none" in found.detail
    assert next(identity({"SPIFFE_ENDPOINT_SOCKET": "nonsense"})).state is State.ERROR


def test_a_workload_api_that_gives_no_identity_is_an_error_within_some_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("nsm.mesh.check.identity._PATIENCE", 0.2)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        (found,) = identity({"SPIFFE_ENDPOINT_SOCKET": f"unix://{tmp_path}/s"})
    assert "issued this process no identity" in found.detail


# --- packages and programs


@pytest.mark.parametrize(
    ("rule", "present", "wrong"),
    [
        ("", "1.0", None),
        (">=2.6", "2.9.2", None),
        (">=2.6", "2.10", None),
        (">=2.6,<4", "2.6", None),
        (">=2.6", "2.5.9", "p>=2.6 (2.5.9 is installed)"),
        ("==0.1.0", "0.2.0", "p==0.1.0 (0.2.0 is installed)"),
        (">=2", None, "p>=2"),
    ],
)
def test_versions(rule, present, wrong):
    assert wrong_version("p", rule, present) == wrong


def test_a_missing_requirement_is_an_error_a_missing_extra_a_warning(monkeypatch):
    real = packages._version
    monkeypatch.setattr(packages, "_version", lambda name: None if name in {"dnspython", "grpclib"} else real(name))
    found = {finding.name: finding for finding in packages.packages()}
    assert found["requirements"].state is State.ERROR
    assert "grpclib" in found["requirements"].detail
    assert found["extra-dns"].state is State.WARNING
    assert found["extra-dns"].hint == "pip install 'nsm-services[dns]'"


def test_parts_of_different_versions_are_an_error(monkeypatch):
    real = packages._version
    monkeypatch.setattr(packages, "_version", lambda name: "9.9" if name == "nsm-apis" else real(name))
    found = {finding.name: finding for finding in packages.packages()}
    assert "nsm-apis 9.9" in found["parts"].detail
    assert found["parts"].state is State.ERROR


def test_a_missing_program_is_a_warning_with_its_package(monkeypatch, tmp_path):
    ping = tmp_path / "ping"
    ping.touch()
    ping.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.name: finding for finding in programs.programs()}
    assert found["ping"].state is State.OK
    assert (found["ip"].state, found["ip"].hint) == (State.WARNING, "apt install iproute2")
