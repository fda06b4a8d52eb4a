"""The single-file verifier brings its own arithmetic. It must agree with the libraries that the product uses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import canonical, merkle, verify_export

_ORDER = 2**252 + 27742317777372353535851937790883648493
DOCUMENTS = [
    {},
    {"b": [1, "x", None, True, False], "a": {"é": "\u2028", '"': "\\\x07\n"}},
    {"€": 1, "\U0001f600": 2, "\ufb33": 3, "ö": 4},
    {"numbers": [0.0, -0.0, 1.0, 1e21, 1e20, 123456789012345680000, 1e-6, 1e-7, 0.1, 5e-324, 1.7976931348623157e308]},
    {"numbers": [333333333.33333329, 4.50, 2e-3, 0.000001, -12.5, 9007199254740991]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_canonical_form_is_rfc_8785s(document: dict[str, object]) -> None:
    read = json.loads(json.dumps(document), parse_int=lambda text: int(text) if len(text) < 17 else float(text))
    assert verify_export.canonical(read) == rfc8785.dumps(read)


def test_its_numbers_are_those_of_rfc_8785() -> None:
    chance = random.Random(8785)
    for _ in range(2000):
        number = chance.uniform(-10, 10) * 10.0 ** chance.randint(-30, 30)
        assert verify_export.canonical(number) == rfc8785.dumps(number)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, {1, 2}])
def test_it_refuses_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(ValueError, match=r"not|too large"):
        verify_export.canonical(value)


def test_it_checks_signatures_as_the_library_makes_them() -> None:
    for length in (0, 1, 100, 5000):
        key = Ed25519PrivateKey.generate()
        public, message = key.public_key().public_bytes_raw(), bytes(length)
        assert verify_export.signed_by(public, message, key.sign(message))


def test_it_refuses_signatures_that_do_not_fit() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"text")
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    refused = [verify_export.signed_by(public, b"texT", signature), verify_export.signed_by(other, b"text", signature)]
    for place in range(64):
        changed = bytearray(signature)
        changed[place] ^= 1
        refused.append(verify_export.signed_by(public, b"text", bytes(changed)))
    # The same signature with its number written one turn larger must not count as another one.
    larger = (int.from_bytes(signature[32:], "little") + _ORDER).to_bytes(32, "little")
    refused.append(verify_export.signed_by(public, b"text", signature[:32] + larger))
    refused.append(verify_export.signed_by(b"\xff" * 32, b"text", signature))
    assert not any(refused)


def test_its_hash_is_the_sealers() -> None:
    arguments = ("ab" * 16, 7, b"\x01" * 32, b'{"v":1}')
    assert verify_export.chain_hash(*arguments) == canonical.chain_hash(*arguments)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 33])
def test_its_paths_are_those_of_the_tree(size: int) -> None:
    leaves = [merkle.leaf(bytes([number])) for number in range(size)]
    for index, leaf in enumerate(leaves):
        path = merkle.inclusion_proof(index, leaves)
        assert verify_export.root_from_proof(leaf, index, size, path) == merkle.root_of(leaves)
        assert verify_export.root_from_proof(leaf, index, size, [*path, leaf]) is None
        if path:
            assert verify_export.root_from_proof(leaf, index, size, path[:-1]) != merkle.root_of(leaves)


def test_it_needs_nothing_but_its_one_file(tmp_path: Path) -> None:
    copy = tmp_path / "verify_export.py"
    copy.write_bytes(Path(verify_export.__file__).read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(copy), "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Check an exported audit." in done.stdout
