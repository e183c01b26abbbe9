"""Policies in files: what they decide, where they are found, what becomes of bad ones."""

import asyncio
import os
import subprocess
import sys
import time

import jwt
import pytest
import structlog

from nsm.apis.wellknown import Timestamp
from nsm.chains.policy import CLIENT_MASKS, SERVER_MASKS, Path, PolicySet, documents
from nsm.chains.policy.policies import (
    next_token_signed,
    prev_token_signed,
    tokens_chained,
    tokens_expired,
    tokens_valid,
)
from nsm.chains.policy.rego import engine as engine_module
from tests.chains.policy import regos
from tests.chains.policy.paths import CLIENT, MANAGER, OTHER, path_of, peer, signed

NATIVE = {
    tokens_valid: regos.TOKENS_VALID,
    tokens_expired: regos.TOKENS_EXPIRED,
    tokens_chained: regos.TOKENS_CHAINED,
    prev_token_signed: regos.PREV_TOKEN_SIGNED,
    next_token_signed: regos.NEXT_TOKEN_SIGNED,
}


def good(name="client"):
    return path_of([signed(CLIENT), signed(MANAGER, CLIENT)], name=name)


def by_file(text, tmp_path, name="mine"):
    path = tmp_path / f"{name}.rego"
    path.write_text(text)
    return PolicySet.select([str(path)])


async def decided(chosen, path, whose="spiffe://test.mesh/client", who=CLIENT, whole=False):
    return await chosen.refusal_by_files(documents.of_path(path, peer(who), whole=whole), None, origin=whose)


PATHS = {
    "good": lambda: [signed(CLIENT), signed(MANAGER, CLIENT)],
    "of one": lambda: [signed(CLIENT)],
    "empty": list,
    "expired": lambda: [signed(CLIENT, exp=int(time.time()) - 5), signed(MANAGER, CLIENT)],
    "for another": lambda: [signed(CLIENT, OTHER), signed(MANAGER, CLIENT)],
    "for nobody": lambda: [signed(CLIENT, aud=[]), signed(MANAGER, CLIENT)],
    "for a text": lambda: [signed(CLIENT, aud=MANAGER.spiffe_id), signed(MANAGER, CLIENT)],
    "of another": lambda: [signed(OTHER, sub=CLIENT.spiffe_id), signed(MANAGER, CLIENT)],
    "no token": lambda: ["", signed(MANAGER, CLIENT)],
    "no JWT": lambda: ["not a token", signed(MANAGER, CLIENT)],
    "three": lambda: [signed(CLIENT), signed(MANAGER, OTHER), signed(OTHER)],
}


@pytest.mark.parametrize("policy", NATIVE, ids=lambda each: each.__name__)
@pytest.mark.parametrize("tokens", PATHS.values(), ids=PATHS)
async def test_a_policy_in_rego_decides_as_the_native_one_of_its_name(policy, tokens, tmp_path):
    """JWT, ES256 with a certificate and the time are all built in; index 0 and what is empty are left out."""
    tokens = tokens()
    for index, who in ((1, CLIENT), (0, MANAGER), (0, OTHER)):
        refusal = await decided(by_file(NATIVE[policy], tmp_path), path_of(tokens, index), who=who, whole=True)
        assert (refusal is None) == (policy(Path(tokens, index, peer(who))) is None), refusal


async def test_a_registration_is_judged_by_who_has_the_name(tmp_path):
    chosen = by_file(regos.CLIENT_ALLOWED, tmp_path)

    async def asked(owner, owners):
        document = documents.of_registration("nse", [], 1, peer(CLIENT), owner=owner, owners=owners)
        return await chosen.refusal_by_files(document, None, origin=owner)

    assert await asked("spiffe://a/one", {}) is None
    assert await asked("spiffe://a/one", {"nse": ["spiffe://a/one", "spiffe://a/nsmgr"]}) is None
    assert "`valid` is false" in await asked("spiffe://a/two", {"nse": ["spiffe://a/one"]})


async def test_a_monitor_is_judged_by_whose_connections_it_selects(tmp_path):
    chosen = by_file(regos.SERVICE_CONNECTION, tmp_path)
    connections = {CLIENT.spiffe_id: ["one"], OTHER.spiffe_id: ["two"]}
    for selected, allowed in ((["one"], True), (["two"], False), ([], False)):
        document = documents.of_monitor(peer(CLIENT), selected, connections)
        assert (await chosen.refusal_by_files(document, peer(CLIENT)) is None) == allowed


def test_the_input_is_what_upstream_s_policies_are_written_for():
    path = good()
    path.path_segments[0].expires = Timestamp(seconds=7, nanos=5)
    path.path_segments[0].metrics = {"a": "b"}
    path.index = 0
    document = documents.of_path(path, peer(CLIENT), whole=False)
    token = path.path_segments[0].token
    assert document["path_segments"] == [
        {"name": "client", "id": "id-0", "token": token, "expires": {"seconds": 7, "nanos": 5}, "metrics": {"a": "b"}}
    ]
    assert "index" not in document
    assert document["auth_info"]["certificate"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert documents.of_path(None, None, whole=True) == {"auth_info": {"certificate": ""}}
    registration = documents.of_registration("nse", ["t"], 0, None, owner="spiffe://a/b", owners={"nse": ("x",)})
    assert registration == {
        "resource_id": "spiffe://a/b",
        "resource_name": "nse",
        "resource_path_ids_map": {"nse": ["x"]},
        "path_segments": [{"token": "t"}],
        "index": 0,
        "auth_info": {"certificate": ""},
    }


# --- where files are found


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc/nsm/opa/common").mkdir(parents=True)
    return tmp_path


def names(chosen):
    return [name.rpartition("/")[2] for name, _ in chosen.policies]


async def test_a_file_with_the_name_of_a_native_policy_replaces_it_and_any_other_adds(here):
    (here / "etc/nsm/opa/common/tokens_expired.rego").write_text(regos.NOBODY)
    (here / "etc/nsm/opa/common/more.rego").write_text(regos.EVERYBODY)
    chosen = PolicySet.select(SERVER_MASKS)
    assert names(chosen) == ["tokens_valid.rego", "tokens_chained.rego", "prev_token_signed.rego"]
    assert sorted(file.name for file in chosen.files) == ["more", "tokens_expired"]
    refusal = await decided(chosen, good())
    assert refusal == f"tokens_expired ({here}/etc/nsm/opa/common/tokens_expired.rego): its rule `valid` is false"


async def test_masks_mean_files_below_their_folder_and_a_path_means_its_file(here):
    (here / "mine").mkdir()
    for name in ("one.rego", "two.rego", "other.txt"):
        (here / "mine" / name).write_text(regos.EVERYBODY)
    (here / "odd+(name).rego").write_text(regos.EVERYBODY)
    assert [file.name for file in PolicySet.select(["mine/.*.rego"]).files] == ["one", "two"]
    assert [file.name for file in PolicySet.select([f"{here}/mine/t.*"]).files] == ["two"]
    assert [file.name for file in PolicySet.select([f"{here}/.*/one.rego"]).files] == ["one"]
    assert [file.name for file in PolicySet.select(["odd+(name).rego"]).files] == ["odd+(name)"]
    both = PolicySet.select([*CLIENT_MASKS, "./mine/one.rego", "mine/one.rego"])
    assert len(both.policies) == 4
    assert [file.name for file in both.files] == ["one"]
    with pytest.raises(ValueError, match="selects neither a file"):
        PolicySet.select(["mine/three.rego"])


def test_versions_that_a_config_map_keeps_are_not_policies_of_their_own(here):
    folder = here / "etc/nsm/opa/common"
    (folder / "..v1").mkdir()
    (folder / "..v1/mine.rego").write_text(regos.EVERYBODY)
    (folder / "..data").symlink_to("..v1")
    (folder / "mine.rego").symlink_to("..data/mine.rego")
    assert [file.path for file in PolicySet.select(SERVER_MASKS).files] == [str(folder / "mine.rego")]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_what_another_user_put_into_the_working_directory_is_no_policy(here):
    """Nor what another user may exchange: a folder, or a link to a file that is in order today."""
    (here / "good.rego").write_text(regos.EVERYBODY)
    path = here / "etc/nsm/opa/common/tokens_valid.rego"
    path.symlink_to(here / "good.rego")
    assert PolicySet.select(SERVER_MASKS).files
    for place in (path, path.parent, here / "etc", here):
        os.chown(place, 4711, 4711, follow_symlinks=False)
        with pytest.raises(ValueError, match=f"{place}: it belongs to uid 4711"):
            PolicySet.select(SERVER_MASKS)
        os.chown(place, 0, 0, follow_symlinks=False)
    path.parent.chmod(0o777)
    with pytest.raises(ValueError, match="common: all users may write to it"):
        PolicySet.select(SERVER_MASKS)


def test_the_engine_is_not_loaded_where_native_policies_suffice():
    code = (
        "import sys; from nsm.chains.policy import *; PolicySet.select(SERVER_MASKS);"
        "print([name for name in sys.modules if 'rego' in name])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_library_a_file_is_refused_with_what_to_install(tmp_path, monkeypatch):
    engine_module.engine.cache_clear()
    monkeypatch.setattr(engine_module, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"need the extra nsm-chains\[rego\]"):
        by_file(regos.EVERYBODY, tmp_path)


# --- bad files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("package nsm\n\nvalid {\n", ":3: expecting }"),
        ("package nsm\n\n\nvalid ? true\n", ":4: "),
        ("package nsm\n\nvalid { foo.bar(1) }\n", ":3: could not find function foo.bar"),
        ("package nsm\n# é\nvalid { not valid }\n", ":3: recursion detected"),
        ("package nsm\nvalid { false; http.send({}) }\n", ":2: the function http.send is not available"),
        (
            "package nsm\nvalid {\n  io.jwt.verify_rs256(1, 2) }\n",
            ":3: the function io.jwt.verify_rs256 is not available",
        ),
        ("package nsm\n\nvalid { x }\n", ":3: use of undefined variable `x` is unsafe"),
        ("package nsm\n\nvalid if { false }\ndenied { true }\n", "`import future.keywords` is missing"),
        ("valid = true\n", ":1: it has no package"),
        ("package 7up\nvalid = true\n", ":1: it has no package"),
        ("package nsm\nallowed = true\n", ":1: it has no rule `valid`"),
        ("", ":1: it has no package"),
        ("package nsm\nvalid = true\n#\0", ":3: a NUL is not text"),
        ("package nsm\nvalid = true\n\n#" + "x" * (256 << 10), " is longer than 256 KiB"),
    ],
)
def test_a_broken_file_is_refused_with_its_path_and_line(text, told, tmp_path):
    with pytest.raises(ValueError) as fault:
        by_file(text, tmp_path)
    assert str(fault.value).startswith(f"{tmp_path}/mine.rego")
    assert told in str(fault.value)
    assert "\n" not in str(fault.value)


async def test_a_package_of_another_name_is_as_good(tmp_path):
    assert await decided(by_file("package my.own_rules # of mine\nvalid = true\n", tmp_path), good()) is None


SHOWN = """package nsm

import rego.v1

# io.jwt.verify_hs256() is not called, "http.send()" neither
shown := crypto.x509.parse_certificates(input.auth_info.certificate)[0]

valid if {
    shown.URIStrings == ["spiffe://test.mesh/client"]
    time.parse_rfc3339_ns(shown.NotAfter) > time.now_ns()
    count(`io.jwt.encode_sign("x")`) > 0
}
"""


async def test_a_policy_may_look_at_the_certificate_that_tls_has_seen(tmp_path):
    chosen = by_file(SHOWN, tmp_path)
    assert await decided(chosen, good()) is None
    assert "is undefined" in await decided(chosen, good(), who=OTHER)
    for certificate in ("", "none", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 5, None):
        document = {**documents.of_path(good(), None, whole=True), "auth_info": {"certificate": certificate}}
        assert "is undefined" in await chosen.refusal_by_files(document, None)


async def test_a_default_alone_is_a_rule(tmp_path):
    assert await decided(by_file("package test\n\ndefault valid := true\n", tmp_path), good()) is None


def test_bytes_that_are_no_text_and_files_that_are_none(tmp_path):
    (tmp_path / "bytes.rego").write_bytes(b"package nsm\n\xff")
    os.mkfifo(tmp_path / "fifo.rego")
    (tmp_path / "loop.rego").symlink_to("loop.rego")
    (tmp_path / "gone.rego").symlink_to("nowhere")
    (tmp_path / "device.rego").symlink_to("/dev/zero")
    for name, told in {
        "bytes.rego": "bytes.rego:2: it is not UTF-8",
        "fifo.rego": "is not a regular file",
        "loop.rego": "cannot be read: Too many levels of symbolic links",
        "gone.rego": "cannot be read: No such file",
        "device.rego": "is not a regular file",
    }.items():
        for mask in (f"{tmp_path}/{name}", f"{tmp_path}/{name[:-2]}.*"):
            with pytest.raises(ValueError, match=told):
                PolicySet.select([mask])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("package nsm\nvalid { input.index == 7 }\n", "is undefined"),
        ("package nsm\nvalid = 1\n", "is neither true nor false"),
        ('package nsm\nvalid = "true"\n', "is neither true nor false"),
        ("package nsm\nvalid[x] { x := true }\n", "is neither true nor false"),
        ("package nsm\nvalid = true { input.index }\nvalid = false { input.index }\n", "cannot be evaluated: line 3"),
        ("package nsm\nvalid { 1 / (input.index - 1) }\n", "cannot be evaluated: line 2"),
        ("package nsm\nvalid { startswith(input.index, `x`) }\n", "cannot be evaluated: line 2"),
    ],
)
async def test_what_is_not_plainly_true_refuses(text, told, tmp_path):
    assert told in await decided(by_file(text, tmp_path), good())


# --- changes


async def test_a_change_is_in_force_with_the_next_call_and_a_broken_one_is_refused(tmp_path):
    path = tmp_path / "mine.rego"
    chosen = by_file(regos.EVERYBODY, tmp_path)
    assert await decided(chosen, good()) is None
    with structlog.testing.capture_logs() as logs:
        for bad in ("package nsm\n\nvalid {", "x" * (257 << 10), "package nsm\n"):
            path.write_text(bad)
            for _ in range(3):
                assert await decided(chosen, good()) is None
        path.unlink()
        assert await decided(chosen, good()) is None
    assert [line["log_level"] for line in logs] == ["warning"] * 4
    assert f"{path}:3: expecting" in logs[0]["error"]
    path.write_text(regos.NOBODY)
    assert "`valid` is false" in await decided(chosen, good())
    os.replace(path, tmp_path / "away")
    (tmp_path / "..v").write_text(regos.EVERYBODY)
    path.symlink_to("..v")
    assert await decided(chosen, good()) is None


# --- calls that a policy cannot cope with


async def test_a_policy_that_loops_refuses_in_time_and_stops_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "SECONDS", 0.4)
    monkeypatch.setattr(engine_module, "PAUSE", 0.1)
    chosen, begun = by_file(regos.LOOP, tmp_path), time.monotonic()
    slow = [asyncio.create_task(decided(chosen, good("slow"), "spiffe://test.mesh/slow")) for _ in range(3)]
    await asyncio.sleep(0.05)
    for _ in range(50):
        assert await decided(chosen, good(), "spiffe://test.mesh/other") is None
    assert not any(task.done() for task in slow), "the others were held up"
    assert time.monotonic() - begun < 0.4
    refusals = await asyncio.gather(*slow)
    assert all("no decision within 0.4 s" in refusal for refusal in refusals)
    assert await decided(chosen, good(), "spiffe://test.mesh/slow") is None


async def test_calls_that_are_given_up_are_not_evaluated_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "SECONDS", 0.3)
    monkeypatch.setattr(engine_module, "PAUSE", 0.1)
    chosen = by_file(regos.LOOP, tmp_path)
    for _ in range(20):
        task = asyncio.create_task(decided(chosen, good("slow"), "spiffe://test.mesh/slow"))
        await asyncio.sleep(0.002)
        task.cancel()
    begun = time.monotonic()
    assert await decided(chosen, good(), "spiffe://test.mesh/other") is None
    assert time.monotonic() - begun < 0.3
    assert await decided(chosen, good(), "spiffe://test.mesh/slow") is None
    assert time.monotonic() - begun < 2


async def test_too_many_calls_of_one_identity_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "WAITING", 3)
    sources = [file.source for file in by_file(regos.EVERYBODY, tmp_path).files]
    ask = engine_module.engine().refusal
    refusals = await asyncio.gather(*(ask(sources, {}, "spiffe://test.mesh/client") for _ in range(5)))
    assert refusals[:3] == [None] * 3
    assert all("3 calls of spiffe://test.mesh/client are already waiting" in refusal for refusal in refusals[3:])
    assert await ask(sources, {}, "spiffe://test.mesh/client") is None


async def test_a_policy_that_takes_the_engine_down_refuses_and_the_next_call_is_served(tmp_path):
    chosen = by_file(regos.CRASH, tmp_path)
    begun = time.monotonic()
    assert "mine" in await decided(chosen, good("bad"))
    assert await decided(chosen, good(), "spiffe://test.mesh/other") is None
    assert await decided(chosen, good()) is None
    assert time.monotonic() - begun > engine_module.PAUSE, "who did it waits"


def base64(text):
    import base64 as encoding

    return encoding.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def unsigned(claims, header='{"alg":"ES256"}'):
    return ".".join(base64(each) for each in (header, claims, "x" * 64))


HOSTILE = {
    "nested": lambda: unsigned("[" * 100_000),
    "nested objects": lambda: unsigned('{"a":' * 50_000),
    "nested header": lambda: unsigned("{}", '{"a":' * 50_000),
    "exponent": lambda: unsigned('{"exp":1e999999}'),
    "digits": lambda: unsigned('{"exp":1' + "0" * 5_000 + "}"),
    "infinite": lambda: unsigned('{"exp":Infinity}'),
    "NUL": lambda: signed(CLIENT) + "\0x",
    "surrogate": lambda: "\ud800." + signed(CLIENT),
    "long": lambda: "a" * 200_000 + "." + "b" * 200_000 + "." + "c" * 200_000,
    "too long": lambda: "a" * (2 << 20),
    "dots": lambda: "." * 100_000,
    "Rego": lambda: '"}; valid = true; x := {"',
    "lines": lambda: '{"load": "x"}\n{"ask": []}\n',
    "unicode": lambda: "\U0001f600\u202e\x1b[31m%s%n" * 1000,
    "none": lambda: jwt.encode({"sub": CLIENT.spiffe_id, "exp": 1e18}, None, algorithm="none"),
}


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE)
async def test_no_token_brings_the_engine_down_or_is_shown(token, tmp_path):
    token = token()
    for text in NATIVE.values():
        chosen = by_file(text, tmp_path)
        for tokens in ([token], [token, signed(MANAGER, CLIENT)], [signed(CLIENT), token]):
            refusal = await decided(chosen, path_of(tokens), whole=True)
            assert refusal is None or token[:20] not in refusal
            if text == regos.PREV_TOKEN_SIGNED and tokens[0] == token:
                assert refusal is not None
    assert await decided(by_file(regos.PREV_TOKEN_SIGNED, tmp_path), good()) is None
