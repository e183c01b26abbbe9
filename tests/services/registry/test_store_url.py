"""What NSM_STORE may be, and what it says about what it may not be."""

from pathlib import Path

import pytest

from nsm.services.registry.store_url import CustomResourceStore, EtcdStore, MemoryStore, SqliteStore, store_url

THREE = (("a", 2379), ("10.0.0.1", 1), ("fd00::1", 2379))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("memory:", MemoryStore()),
        ("k8s:", CustomResourceStore("")),
        ("k8s:nsm-system", CustomResourceStore("nsm-system")),
        ("sqlite:///var/lib/nsm/registry.db", SqliteStore(Path("/var/lib/nsm/registry.db"))),
        ("etcd://a,10.0.0.1:1,[fd00::1]", EtcdStore(THREE)),
        ("etcd://a:2379/meshes/one/", EtcdStore((("a", 2379),), "/meshes/one")),
        (
            "etcd://a:2379?ca=/ca.pem&cert=/c.pem&key=/k.pem&user=nsm&password-file=/run/secret",
            EtcdStore((("a", 2379),), "/nsm/registry", "/ca.pem", "/c.pem", "/k.pem", "nsm", "/run/secret"),
        ),
    ],
)
def test_a_store_url(value, expected):
    assert store_url(value) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "expected memory:, sqlite:///PATH, etcd://"),
        ("k8s", "expected memory:"),
        ("memory:x", "expected memory:"),
        ("redis://x", "expected memory:"),
        ("k8s:Upper", "'Upper' is not the name of a namespace"),
        ("k8s:a/b", "'a/b' is not the name of a namespace"),
        ("sqlite:registry.db", "the absolute path of a file"),
        ("sqlite://registry.db", "the absolute path of a file"),
        ("sqlite:///", "the absolute path of a file"),
        ("etcd://", "'' is not a member of an etcd cluster; expected HOST:PORT"),
        ("etcd://a,,b", "'' is not a member"),
        ("etcd://a:x", "'a:x' is not a member"),
        ("etcd://a:70000", "'a:70000' is not a member"),
        ("etcd://a?tls=yes", "tls=yes is not a parameter of etcd:// URLs; expected each once of ca, cert, key, user"),
        ("etcd://a?ca=", "ca= is not a parameter"),
        ("etcd://a?ca=/1&ca=/2", "ca=/2 is not a parameter"),
        ("etcd://a?ca=/1&cert=/2", "cert and key belong together"),
        ("etcd://a?cert=/1&key=/2", "cert and key need ca"),
        ("etcd://a?user=nsm", "user and password-file belong together"),
        ("etcd://nsm:secret@a", "a URL is shown in logs"),
    ],
)
def test_a_store_url_that_cannot_work_is_told_apart(value, said):
    with pytest.raises(ValueError) as caught:
        store_url(value)
    assert said in str(caught.value)
