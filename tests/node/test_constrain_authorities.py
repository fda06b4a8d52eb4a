"""Whoever steals a sandbox's authority can vouch for its bound hosts and for nothing else, whoever believes it."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sandboxes.node.trust import certify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Believer = Callable[[Path, str], bool]

HOSTS = ("api.example.com", "*.wild.example")
BELIEVED = ("api.example.com", "a.wild.example")
# What the thief makes: the names of the certificate, and the one that a client wants.
FORGED = {
    "another host": (["evil.test"], "evil.test"),
    "beside a bound one": (["api.example.com", "evil.test"], "evil.test"),
    "one that ends like it": (["evilapi.example.com"], "evilapi.example.com"),
    "above it": (["example.com"], "example.com"),
    "a wildcard above it": (["*.example.com"], "www.example.com"),
    "an address": (["127.0.0.1"], "127.0.0.1"),
    "an IPv6 address": (["::1"], "::1"),
    "a common name alone": ([], "evil.test"),
}


class Thief:
    """Has the key of an authority."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authority = certify(self.key, HOSTS)
        self.bundle = directory / "bundle.pem"
        self.bundle.write_bytes(self.authority.public_bytes(Encoding.PEM))

    def forge(self, names: list[str], wanted: str, *, through: bool = False) -> Path:
        """Return a file with a certificate for these names and its key; `through` another authority below the own."""
        issuer, key, chain = self.authority.subject, self.key, b""
        if through:
            issuer, key = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")]), self.new_key()
            below = self.signed(issuer, key.public_key(), self.authority.subject, self.key, ca=True)
            chain = below.public_bytes(Encoding.PEM)
        own = self.new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted)])
        leaf = self.signed(subject, own.public_key(), issuer, key, names=names)
        path = self.directory / "forged.pem"
        path.write_bytes(
            leaf.public_bytes(Encoding.PEM)
            + chain
            + own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return path

    @staticmethod
    def new_key() -> ec.EllipticCurvePrivateKey:
        """Return a key."""
        return ec.generate_private_key(ec.SECP256R1())

    @staticmethod
    def signed(
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: list[str] | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        """Return a certificate."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_name(name) for name in names]), critical=False
            )
        return builder.sign(key, hashes.SHA256())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@pytest.fixture
def thief(tmp_path: Path) -> Thief:
    """Return the thief."""
    return Thief(tmp_path)


# --- who believes: each says whether a certificate is good for a name


def by_openssl(thief: Thief, forged: Path, wanted: str) -> bool:
    """Ask the command of OpenSSL."""
    kind = "-verify_ip" if ":" in wanted or wanted[0].isdigit() else "-verify_hostname"
    command = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", str(thief.bundle), kind, wanted]
    done = subprocess.run([*command, "-untrusted", str(forged), str(forged)], capture_output=True, check=False)
    return done.returncode == 0


GO = """package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func main() {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	bundle, _ := os.ReadFile(os.Args[1])
	roots.AppendCertsFromPEM(bundle)
	rest, _ := os.ReadFile(os.Args[2])
	block, rest := pem.Decode(rest)
	between.AppendCertsFromPEM(rest)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		_, err = leaf.Verify(x509.VerifyOptions{DNSName: os.Args[3], Roots: roots, Intermediates: between})
	}
	fmt.Println(err)
}
"""


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build what asks Go's library."""
    directory = tmp_path_factory.mktemp("go")
    (directory / "main.go").write_text(GO)
    go = shutil.which("go") or "/usr/local/go/bin/go"
    command = [go, "build", "-o", "verify", "main.go"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return directory / "verify"


NODE = """
const tls = require("tls"), fs = require("fs");
const [bundle, port, name] = process.argv.slice(1);
const options = {host: "127.0.0.1", port, ca: fs.readFileSync(bundle), checkServerIdentity: (_, certificate) =>
  tls.checkServerIdentity(name, certificate)};
if (!/^[0-9:.]+$/.test(name)) options.servername = name;
const socket = tls.connect(options, () => { console.log("null"); socket.destroy(); });
socket.on("error", (error) => console.log(error.code));
"""


class Server:
    """Serves a certificate to whoever connects."""

    def __init__(self, forged: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(forged)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass

    def close(self) -> None:
        """Stop."""
        self._thread.join()
        self._listener.close()


def by_node(thief: Thief, forged: Path, wanted: str) -> bool:
    """Connect with Node."""
    server = Server(forged)
    command = ["node", "-e", NODE, str(thief.bundle), str(server.port), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    server.close()
    return done.stdout.strip() == "null"


def by_python(thief: Thief, forged: Path, wanted: str) -> bool:
    """Connect with Python."""
    server = Server(forged)
    context = ssl.create_default_context(cafile=str(thief.bundle))
    try:
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname=wanted),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        server.close()


@pytest.fixture(params=["openssl", "go", "node", "python"])
def believes(request: pytest.FixtureRequest, thief: Thief, go_program: Path) -> Believer:
    """Return who is asked."""

    def by_go(_thief: Thief, forged: Path, wanted: str) -> bool:
        command = [str(go_program), str(thief.bundle), str(forged), wanted]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "<nil>"

    asked = {"openssl": by_openssl, "go": by_go, "node": by_node, "python": by_python}[request.param]
    return lambda forged, wanted: asked(thief, forged, wanted)


@pytest.mark.parametrize("name", BELIEVED)
def test_is_believed_for_bound_hosts(thief: Thief, believes: Believer, name: str) -> None:
    assert believes(thief.forge([name], name), name)


@pytest.mark.parametrize("kind", FORGED)
def test_is_not_believed_for(thief: Thief, believes: Believer, kind: str) -> None:
    names, wanted = FORGED[kind]
    assert not believes(thief.forge(names, wanted), wanted)


def test_has_no_other_authority_below_it(thief: Thief, believes: Believer) -> None:
    forged = thief.forge(["api.example.com"], "api.example.com", through=True)
    assert not believes(forged, "api.example.com")
