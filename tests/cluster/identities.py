"""Who is who in a cluster: an authority, the certificates of servers, the tokens of those who ask, their kubeconfigs."""

import datetime
import ipaddress
import json
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
ADMIN = "admin"
USERS = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "system:node-proxier",
}
"""The users and their groups; nodes come to these."""


@dataclass(frozen=True)
class Identities:
    """Files in `folder`: ca.crt, ca.key, server.crt/key, client.crt/key, accounts.key/pub, tokens.csv."""

    folder: object
    tokens: dict

    def file(self, name):
        return self.folder / name

    def kubeconfig(self, user, server):
        """Write, and give, the file by which `user` reaches the API at the URL `server`."""
        file = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nsm-test",
            "clusters": [
                {"name": "nsm-test", "cluster": {"server": server, "certificate-authority": str(self.file("ca.crt"))}}
            ],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "nsm-test", "context": {"cluster": "nsm-test", "user": user}}],
        }
        file.write_text(json.dumps(text, indent=1))  # JSON is YAML
        file.chmod(0o600)
        return file


def make(folder, addresses, nodes=()):
    """Identities of a cluster whose API server is reached at `addresses`, with the named nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate("nsm-test-ca", ca_key, None, None)
    write(folder, "ca", ca_key, ca)
    server_key = ec.generate_private_key(ec.SECP256R1())
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    server = certificate("kube-apiserver", server_key, ca, ca_key, names=names, addresses=addresses)
    write(folder, "server", server_key, server)
    client_key = ec.generate_private_key(ec.SECP256R1())
    write(folder, "client", client_key, certificate("kube-apiserver-kubelet-client", client_key, ca, ca_key))
    accounts = ec.generate_private_key(ec.SECP256R1())
    (folder / "accounts.key").write_bytes(pem(accounts))
    (folder / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    groups = {**USERS, **{f"system:node:{node}": "system:nodes" for node in nodes}}
    tokens = {user: secrets.token_hex(16) for user in groups}
    (folder / "tokens.csv").write_text(
        "".join(f'{tokens[user]},{user},{user},"{group}"\n' for user, group in groups.items())
    )
    return Identities(folder, tokens)


def read(folder):
    """The identities that `make` made in `folder`."""
    lines = (folder / "tokens.csv").read_text().splitlines()
    return Identities(folder, {user: token for token, user, *_ in (line.split(",") for line in lines)})


def certificate(name, key, issuer, issuer_key, names=(), addresses=(), lifetime=LIFETIME):
    """A certificate for server and client, from a while ago on; an authority of its own without `issuer`."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    alternatives = [
        *(x509.DNSName(each) for each in names),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses),
    ]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def write(folder, name, key, made):
    (folder / f"{name}.key").write_bytes(pem(key))
    (folder / f"{name}.key").chmod(0o600)
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
