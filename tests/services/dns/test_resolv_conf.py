"""A resolv.conf is changed while it is needed and then as it was, to the byte, whatever happened meanwhile."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from nsm.chains.core import InvalidRequest
from nsm.services.dns import resolv_conf
from nsm.services.dns.resolv_conf import Original, ResolvConf, ResolvConfError, copy_if_missing, read_original

USUAL = b"""# made by somebody
nameserver 10.96.0.10
search default.svc.cluster.local svc.cluster.local
options ndots:5 edns0
"""
ODD = [
    USUAL,
    b"",
    b"\n",
    b"\n\n",
    b"nameserver 10.0.0.1",
    b"#one\n##two\n# three",
    b"nameserver 10.0.0.1\r\nsearch a b\r\n",
    b"\xff\xfe not text \x00\n",
    b"# nsm: begin\n# nsm: end\n",
    b"nameserver 127.0.0.1\nnameserver ::1\noptions timeout:1\n",
]

LINES = [
    b"",
    b"#",
    b"nameserver 127.0.0.1",
    b"search a",
    b"options ndots:1 ",
    b"\r",
    b"; nsm: end",
    b" nsm: cut",
    resolv_conf._BEGIN.strip(),
    b" " + resolv_conf._END.strip(),
    b"\xff",
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_bytes(USUAL)
    return path


def in_force(content):
    return [line for line in content.decode(errors="replace").splitlines() if line and not line.startswith(("#", ";"))]


def crash(path):
    """A process changes the file and is gone without a word: its lock goes with it."""
    script = (
        "import os; from nsm.services.dns import resolv_conf; resolv_conf._is_of_others = lambda _: False;"
        f"resolv_conf.ResolvConf({str(path)!r}).change('127.0.0.1', ['mesh.test']); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9


@pytest.fixture(autouse=True)
def a_file_of_ours(monkeypatch):
    """These files are, whatever namespaces the tests run in."""
    monkeypatch.setattr(resolv_conf, "_is_of_others", lambda _: False)


SEARCHED = "search default.svc.cluster.local svc.cluster.local"


def test_the_local_server_takes_the_place_of_servers_and_search_domains_and_options_stay(file):
    before = ResolvConf(str(file)).change("127.0.0.1")
    assert before == Original(("10.96.0.10",), ("default.svc.cluster.local", "svc.cluster.local"))
    assert in_force(file.read_bytes()) == ["nameserver 127.0.0.1", SEARCHED, "options ndots:5 edns0"]
    assert b"#nameserver 10.96.0.10\n" in file.read_bytes()


def test_domains_of_wires_are_searched_behind_those_of_the_workload_each_once(file):
    ResolvConf(str(file)).change("127.0.0.1", ["mesh.test", "SVC.cluster.local.", "other.test"])
    ours = ["nameserver 127.0.0.1", SEARCHED, "options ndots:5 edns0", f"{SEARCHED} mesh.test other.test"]
    assert in_force(file.read_bytes()) == ours


def test_domains_that_change_take_the_place_of_the_earlier_ones_and_what_others_wrote_stays(file):
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1", ["one.test"])
    file.write_bytes(file.read_bytes() + b"nameserver 192.0.2.9\n")
    for domains in (["two.test", "three.test"], []):
        conf.search("127.0.0.1", domains)
        searched = read_original(file.read_bytes()).search_domains
        assert searched == ("default.svc.cluster.local", "svc.cluster.local", *domains)
    conf.restore()
    assert file.read_bytes() == USUAL + b"nameserver 192.0.2.9\n"


def test_domains_are_not_written_to_a_file_that_is_somebody_else_s_now(file):
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1", ["one.test"])
    file.write_bytes(b"nameserver 192.0.2.9\n")
    conf.search("127.0.0.1", ["two.test"])
    assert file.read_bytes() == b"nameserver 192.0.2.9\n"


def test_musl_which_passes_over_long_lines_still_searches_where_the_workload_did(file):
    """A line of 256 bytes or more does not exist for it; the last of those that do counts."""
    domains = [f"{'d' * 40}{n}.test" for n in range(9)]
    ResolvConf(str(file)).change("127.0.0.1", domains)
    lines = file.read_bytes().splitlines(keepends=True)
    of_musl = read_original(b"".join(line for line in lines if len(line) < 256)).search_domains
    assert of_musl == ("default.svc.cluster.local", "svc.cluster.local", *domains[:4])
    assert read_original(file.read_bytes()).search_domains[2:] == tuple(domains)


@pytest.mark.parametrize(("host", "own"), [("web.corp.test", ("corp.test",)), ("web", ())])
def test_a_file_that_names_no_domain_has_that_of_the_host_searched_first_as_before(file, monkeypatch, host, own):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    file.write_bytes(b"nameserver 10.0.0.1\n")
    ResolvConf(str(file)).change("127.0.0.1", ["mesh.test"])
    assert read_original(file.read_bytes()).search_domains == (*own, "mesh.test")


@pytest.mark.parametrize("content", ODD)
def test_it_is_restored_to_the_byte(file, content):
    file.write_bytes(content)
    conf = ResolvConf(str(file))
    for domains in ((), ("mesh.test",), tuple(f"{'d' * 50}{n}.test" for n in range(9))):
        conf.change("127.0.0.1", domains)
        assert file.read_bytes() != content
        conf.search("127.0.0.1", ["other.test"])
        conf.restore()
        assert file.read_bytes() == content
    conf.restore()
    assert file.read_bytes() == content


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None)
@hypothesis.given(lines=st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=20)), max_size=12))
def test_any_content_is_restored_to_the_byte(file, lines):
    content = b"\n".join(lines)
    hypothesis.assume(not resolv_conf._is_marked(content))  # that is what a crash leaves
    file.write_bytes(content)
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1", ["mesh.test"])
    conf.restore()
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", ODD)
def test_it_is_restored_to_the_byte_after_a_crash(file, content):
    file.write_bytes(content)
    crash(file)
    assert file.read_bytes() != content
    assert ResolvConf(str(file)).recover()
    assert file.read_bytes() == content
    assert not ResolvConf(str(file)).recover()


def test_a_change_after_a_crash_starts_from_what_was_there_before_it(file):
    crash(file)
    conf = ResolvConf(str(file))
    assert conf.change("127.0.0.2").servers == ("10.96.0.10",)
    assert file.read_bytes().count(b"nsm: begin") == 1
    conf.restore()
    assert file.read_bytes() == USUAL


@pytest.mark.parametrize("content", ODD)
def test_a_process_that_is_killed_between_writing_and_cutting_leaves_what_can_be_restored(file, content, monkeypatch):
    file.write_bytes(content)
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    with monkeypatch.context() as killed:
        killed.setattr(os, "ftruncate", lambda *_: None)
        conf.restore()
    assert file.read_bytes() != content
    assert ResolvConf(str(file)).recover()
    assert file.read_bytes() == content


def as_upstream_leaves_it(original):
    return (
        b"\n".join(b"#" + line for line in original.split(b"\n")) + b"\n\noptions ndots:5 edns0\nnameserver 127.0.0.1"
    )


@pytest.mark.parametrize("original", [USUAL, b"nameserver 10.0.0.1", b"\n\nnameserver 10.0.0.1\n\n"])
def test_what_a_client_of_upstream_left_is_what_it_was_before(file, original):
    """It does not clean up when it ends, only when it starts again; whoever takes its place must know the servers."""
    file.write_bytes(as_upstream_leaves_it(original))
    conf = ResolvConf(str(file))
    assert conf.change("127.0.0.1") == read_original(original)
    conf.restore()
    assert file.read_bytes() == original


@pytest.mark.parametrize(
    "content",
    [
        b"#nameserver 10.0.0.1\n\nnameserver 10.0.0.2\n",
        b"#nameserver 10.0.0.1\n\nnameserver 127.0.0.1\nnameserver 10.0.0.2\n",
        b"#nameserver 10.0.0.1\nnameserver 127.0.0.1\n",
        b"# a comment\n\nnameserver 127.0.0.1\n",
        b"#nameserver 10.0.0.1\n\nnameserver 127.0.0.1\n# edited\n",
    ],
)
def test_what_a_client_of_upstream_did_not_write_is_not_changed_back(file, content):
    file.write_bytes(content)
    conf = ResolvConf(str(file))
    assert "10.0.0.1" not in conf.change("127.0.0.1").servers
    conf.restore()
    assert file.read_bytes() == content


def test_a_client_of_upstream_finds_what_ours_commented_out(file):
    """It takes every line behind a # for the original: our own marks must not begin so."""
    crash(file)
    commented = [line[1:] for line in file.read_bytes().split(b"\n") if line.startswith(b"#")]
    assert b"\n".join(commented) == USUAL


def test_owner_mode_inode_and_symlink_stay(file, tmp_path):
    file.chmod(0o640)
    if os.getuid() == 0:
        os.chown(file, 1234, 4321)
    before = file.stat()
    link = tmp_path / "link"
    link.symlink_to(file.name)
    conf = ResolvConf(str(link))
    for step in (lambda: conf.change("127.0.0.1"), conf.restore):
        step()
        after = file.stat()
        assert (after.st_ino, after.st_uid, after.st_gid, after.st_mode) == (
            before.st_ino,
            before.st_uid,
            before.st_gid,
            before.st_mode,
        )
        assert link.is_symlink()
    assert file.read_bytes() == USUAL


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    """The C library asks 127.0.0.1 then."""
    for path in (tmp_path / "none", tmp_path / "dangling"):
        if path.name == "dangling":
            path.symlink_to("none")
        conf = ResolvConf(str(path))
        assert conf.change("127.0.0.1") is None
        conf.restore()
        assert not conf.recover()
    assert os.listdir(tmp_path) == ["dangling"]


def test_what_others_append_or_put_before_it_stays(file):
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    file.write_bytes(b"# first\n" + file.read_bytes() + b"nameserver 192.0.2.9\n")
    assert conf.is_ours()
    conf.restore()
    assert file.read_bytes() == b"# first\n" + USUAL + b"nameserver 192.0.2.9\n"


@pytest.mark.parametrize("original", [USUAL, USUAL.rstrip(b"\n")])
def test_what_others_write_between_our_lines_stays(file, original):
    file.write_bytes(original)
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    file.write_bytes(file.read_bytes().replace(b"nameserver 127.0.0.1\n", b"nameserver 192.0.2.9\n"))
    conf.restore()
    assert file.read_bytes() == USUAL + b"nameserver 192.0.2.9\n"


def test_a_file_that_somebody_replaced_is_theirs(file, tmp_path):
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    (tmp_path / "new").write_bytes(b"nameserver 192.0.2.9\n")
    os.rename(tmp_path / "new", file)
    assert not conf.is_ours()
    conf.restore()
    assert file.read_bytes() == b"nameserver 192.0.2.9\n"


def test_a_file_that_somebody_wrote_anew_is_theirs(file):
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    file.write_bytes(b"nameserver 192.0.2.9\n")
    assert not conf.is_ours()
    conf.restore()
    assert file.read_bytes() == b"nameserver 192.0.2.9\n"


def test_our_part_is_taken_out_of_a_copy_that_somebody_put_in_its_place(file, tmp_path):
    """As editors do."""
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    (tmp_path / "new").write_bytes(file.read_bytes() + b"# edited\n")
    os.rename(tmp_path / "new", file)
    conf.restore()
    assert file.read_bytes() == USUAL + b"# edited\n"


def test_a_copy_that_may_be_written_is_made_once_and_by_everybody_read(file, tmp_path):
    copy = tmp_path / "copy"
    before = os.umask(0o077)
    try:
        copy_if_missing(str(file), str(copy))
    finally:
        os.umask(before)
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (USUAL, 0o644)
    copy.write_bytes(b"changed\n")
    copy_if_missing(str(file), str(copy))
    copy_if_missing("", str(tmp_path / "none"))
    assert copy.read_bytes() == b"changed\n"
    assert sorted(os.listdir(tmp_path)) == ["copy", "resolv.conf"]


def test_a_copy_that_cannot_be_made_ends_the_client_with_both_names(file, tmp_path):
    with pytest.raises(InvalidRequest, match=r"NSM_RESOLV_CONF_FROM='.*' cannot be copied to .*: No such file"):
        copy_if_missing(str(file), str(tmp_path / "no" / "copy"))


def test_two_clients_do_not_change_one_file(file):
    one, other = ResolvConf(str(file)), ResolvConf(str(file))
    one.change("127.0.0.1")
    changed = file.read_bytes()
    with pytest.raises(ResolvConfError, match="in use by another client"):
        other.change("127.0.0.2")
    assert not other.recover()
    assert file.read_bytes() == changed
    one.restore()
    other.change("127.0.0.2")
    other.restore()
    assert file.read_bytes() == USUAL


def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    real = os.pwrite

    def full(descriptor, data, offset):
        return real(descriptor, data[:100] if b"nsm: begin" in data else data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ResolvConfError, match="No space left"):
        ResolvConf(str(file)).change("127.0.0.1")
    assert file.read_bytes() == USUAL


def test_no_descriptor_is_left(file):
    before = len(os.listdir("/proc/self/fd"))
    conf = ResolvConf(str(file))
    conf.change("127.0.0.1")
    with pytest.raises(ResolvConfError):
        ResolvConf(str(file)).change("127.0.0.1")
    conf.restore()
    with pytest.raises(ResolvConfError, match="not a regular file"):
        ResolvConf("/dev/null").change("127.0.0.1")
    with pytest.raises(ResolvConfError, match="cannot be changed"):
        ResolvConf(str(file.parent)).change("127.0.0.1")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EROFS, "it is mounted read-only"), (errno.EACCES, "this user may not write it")]
)
def test_a_file_that_may_not_be_written_is_left_and_the_reason_told(file, monkeypatch, number, reason):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResolvConfError, match=f"cannot be changed: {reason}"):
        ResolvConf(str(file)).change("127.0.0.1")
    assert file.read_bytes() == USUAL


IN_NAMESPACES = """
import os
from nsm.services.dns.resolv_conf import ResolvConf, ResolvConfError
conf = ResolvConf()
try:
    conf.change("127.0.0.1")
except ResolvConfError as error:
    print(error)
print(open("/etc/resolv.conf").read().count("nsm: begin"))
conf.restore()
"""


@pytest.mark.system
@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
class TestInNamespaces:
    """With real mounts; the machine's own file is never at stake: another one is mounted on it."""

    def run(self, own, script):
        before = Path("/etc/resolv.conf").stat()
        script = f"mount --bind {own} /etc/resolv.conf; {script}"
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", script]
        done = subprocess.run(
            [*command, sys.executable, IN_NAMESPACES], capture_output=True, text=True, timeout=30, check=False
        )
        after = Path("/etc/resolv.conf").stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_a_file_that_is_mounted_is_changed_at_its_place(self, file):
        assert self.run(file, '"$0" -c "$1"') == "1\n"
        assert file.read_bytes() == USUAL

    def test_a_file_that_is_mounted_read_only_is_left(self, file):
        told = self.run(file, 'mount -o remount,bind,ro /etc/resolv.conf; "$0" -c "$1"')
        assert told == "/etc/resolv.conf cannot be changed: it is mounted read-only\n0\n"

    @pytest.mark.parametrize("kinds", ["--net", "--net --mount"])
    def test_a_file_that_processes_in_another_network_use_too_is_left(self, file, kinds):
        """A client that somebody runs on a machine, in a network namespace; also as `ip netns exec` does it."""
        told = self.run(file, f'unshare {kinds} "$0" -c "$1"; true')
        assert told.startswith("/etc/resolv.conf is shared with processes in another network namespace")
        assert told.endswith("\n0\n")


@pytest.mark.parametrize(
    ("content", "servers", "domains"),
    [
        (
            b"nameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n",
            ("10.0.0.1", "fe80::1%eth0"),
            (),
        ),
        (b"search a b\ndomain c d\n", (), ("c",)),
        (b"search a b\nsearch\n", (), ("a", "b")),
        (b"domain c\nsearch a b\n", (), ("a", "b")),
        (b"#nameserver 10.0.0.1\n; search a\n", (), ()),
    ],
)
def test_what_a_file_says(content, servers, domains):
    assert read_original(content) == Original(servers, domains)
