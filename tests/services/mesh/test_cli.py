"""What `nsm mesh` prints while a mesh starts."""

from nsm.mesh.cli import show


def test_a_wire_by_memif_has_no_interface_and_is_shown_all_the_same(capsys):
    show({"event": "wire up", "component": "client", "endpoint": "fast", "addresses": ["10.0.0.1/32"], "ms": 5})
    assert capsys.readouterr().out.split() == ["client", "wire", "to", "fast:", "10.0.0.1/32", "in", "5", "ms"]
