#!/usr/bin/env python3
"""Check an exported audit without trusting who exported it. One file, Python 3.10 or newer, nothing else needed.

    python verify_export.py EXPORT.jsonl --key HEX [--key HEX …] [--complete]

HEX is a public key of the installation's ledger, learnt apart from the export. Every line is checked: the event's
hash, its place in the chain, its proof of inclusion in a signed checkpoint, and the checkpoints' signatures.

Status 0: all is as it was signed. 1: something was changed. 2: something is missing, or newer than the last checkpoint.
3: the file or the arguments can't be read.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN = b"gatehouse-audit-v1"
FORMAT = "gatehouse-audit-export"
NO_HASH = bytes(32)
GOOD, TAMPERED, INCOMPLETE, USAGE = 0, 1, 2, 3
_TAMPERED = "edited reordered duplicated inserted rewritten bad_signature"
STATUS = dict.fromkeys(_TAMPERED.split(), TAMPERED) | {"ok": GOOD, "missing": INCOMPLETE, "unproven": INCOMPLETE}
_SIGNATURE_LINE = "\N{EM DASH} "
_MAX_SAFE = 2**53


class ExportError(Exception):
    """The export can't be read at all."""


# --- RFC 8785: one text for one document


def canonical(value: object) -> bytes:
    """Return a document in the canonical form that was hashed. Raises ValueError for what has none."""
    return "".join(_write(value)).encode("utf-8")


def _write(value: object) -> Iterator[str]:
    if value is None or isinstance(value, (bool, str)):
        yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, int):
        if abs(value) >= _MAX_SAFE:
            raise ValueError("a whole number is too large")
        yield str(value)
    elif isinstance(value, float):
        yield _number(value)
    elif isinstance(value, list):
        yield "["
        for position, inner in enumerate(value):
            yield "," if position else ""
            yield from _write(inner)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for position, name in enumerate(sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))):
            yield "," if position else ""
            yield json.dumps(name, ensure_ascii=False) + ":"
            yield from _write(value[name])
        yield "}"
    else:
        raise ValueError("not JSON")


def _number(value: float) -> str:
    """Write a number as ECMAScript does."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not a number of JSON")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, part = mantissa.partition(".")
    part = "" if part == "0" else part
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + part) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    rest = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"


# --- the chain, and RFC 6962's tree over it


def chain_hash(chain: str, seq: int, previous: bytes, body: bytes) -> bytes:
    """Return the hash of one event: a leaf of the tree."""
    name = chain.encode("utf-8")
    head = b"\x00" + DOMAIN + len(name).to_bytes(2, "big") + name + seq.to_bytes(8, "big")
    return hashlib.sha256(head + previous + body).digest()


def root_from_proof(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """Return the root that a proof of inclusion leads to (RFC 9162, 2.1.3.2); None when it has the wrong length."""
    if not 0 <= index < size:
        return None
    number, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        if number & 1 or number == last:
            found = _node(step, found)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            found = _node(found, step)
        number >>= 1
        last >>= 1
    return found if last == 0 else None


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- Ed25519 (RFC 8032), verification only

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]  # x, y, z, x*y/z


def _recover_x(y: int, sign: int) -> int | None:
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    return _P - x if x & 1 != sign else x


def _point(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    y = number & ((1 << 255) - 1)
    x = _recover_x(y, number >> 255)
    return None if x is None else (x, y, 1, x * y % _P)


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(number: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE_X = _recover_x(_BASE_Y, 0) or 0
_BASE: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def signed_by(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether an Ed25519 signature fits."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment = _point(public_key), _point(signature[:32])
    number = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or number >= _L:
        return False
    challenge = hashlib.sha512(signature[:32] + public_key + message).digest()
    left = _times(number, _BASE)
    right = _add(commitment, _times(int.from_bytes(challenge, "little") % _L, key))
    x_differs = (left[0] * right[2] - right[0] * left[2]) % _P
    y_differs = (left[1] * right[2] - right[1] * left[2]) % _P
    return not x_differs and not y_differs


# --- checkpoints: C2SP signed notes


class Checkpoint(NamedTuple):
    """A checkpoint whose signature fits."""

    chain: str
    size: int
    root: bytes


def open_note(text: Any, keys: list[bytes]) -> list[str] | None:
    """Return the lines of a signed text, or None when no key that is trusted signed it."""
    signed, blank, signatures = text.rpartition("\n\n") if isinstance(text, str) else ("", "", "")
    message = (signed + "\n").encode("utf-8", "surrogatepass")
    if not blank or not any(_signs(line, message, keys) for line in signatures.splitlines()):
        return None
    return signed.split("\n")


def read_checkpoint(text: Any, keys: list[bytes]) -> Checkpoint | None:
    """Return what a checkpoint says, or None when no key that is trusted signed it."""
    lines = open_note(text, keys) or []
    try:
        return Checkpoint(lines[0].rpartition("/")[2], int(lines[1]), base64.b64decode(lines[2], validate=True))
    except (IndexError, ValueError, binascii.Error):
        return None


def read_prune_record(text: Any, keys: list[bytes]) -> tuple[str, list[tuple[int, int]]] | None:
    """Return whose numbers were dropped and which, or None when no key that is trusted signed it."""
    lines = open_note(text, keys) or []
    try:
        if lines[1] != "pruned":
            return None
        ranges = [line.split(" ")[1:] for line in lines[2:] if line.startswith("range ")]
        return lines[0].rpartition("/")[2], [(int(first), int(last)) for first, last in ranges]
    except (IndexError, ValueError):
        return None


def _signs(line: str, message: bytes, keys: list[bytes]) -> bool:
    try:
        blob = base64.b64decode(line.rpartition(" ")[2], validate=True)
    except (ValueError, binascii.Error):
        return False
    return line.startswith(_SIGNATURE_LINE) and any(signed_by(key, message, blob[4:]) for key in keys)


# --- the export


@dataclass
class Finding:
    """One thing that is wrong, and where."""

    verdict: str
    line: int
    chain: str = ""
    seq: int = 0
    event_id: str = ""
    expected: str = ""
    found: str = ""
    note: str = ""

    def sentence(self) -> str:
        """Return it as one line."""
        parts = {"line": self.line, "chain": self.chain, "event": self.seq, "id": self.event_id}
        where = ", ".join(f"{name} {value}" for name, value in parts.items() if value)
        hashes = f" expected {self.expected} found {self.found}" if self.expected else ""
        return f"{self.verdict}: {where}: {self.note}{hashes}"


@dataclass
class _Chain:
    """What was read of one chain so far."""

    last_seq: int = 0
    last_hash: bytes = NO_HASH
    ids: set[str] = field(default_factory=set)


@dataclass
class Report:
    """What came of it."""

    events: int = 0
    checkpoints: int = 0
    unproven: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The first thing that is wrong, changes before gaps; "ok" when nothing is."""
        worst = sorted(self.findings, key=lambda one: STATUS[one.verdict] != TAMPERED)
        return worst[0].verdict if worst else "ok"


def verify(lines: Iterator[str], keys: list[bytes], *, complete: bool = False) -> Report:
    """Check an export line by line. `complete` demands that no number is left out. Raises ExportError."""
    return _Reader(keys, complete=complete).read(lines)


class _Reader:
    def __init__(self, keys: list[bytes], *, complete: bool) -> None:
        self._keys = keys
        self._complete = complete
        self._report = Report()
        self._chains: dict[str, _Chain] = {}
        self._roots: dict[tuple[str, int], bytes] = {}
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        self._claims: list[tuple[Finding, int, bytes]] = []

    def read(self, lines: Iterator[str]) -> Report:
        for number, text in enumerate(lines, 1):
            if text.strip():
                self._line(number, _parse(number, text))
        self._settle()
        return self._report

    def _line(self, number: int, line: dict[str, Any]) -> None:
        if "header" in line:
            self._header(line["header"])
        elif "checkpoint" in line:
            self._checkpoint(number, line["checkpoint"])
        elif "event" in line:
            self._event(number, line)
        elif "pruned" in line:
            self._pruned(number, line["pruned"])
        elif "end" not in line:
            raise ExportError(f"line {number} is neither an event nor a checkpoint")

    def _header(self, header: Any) -> None:
        if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("v") != 1:
            raise ExportError("this is not an export that this program knows")

    def _checkpoint(self, number: int, text: Any) -> None:
        note = read_checkpoint(text, self._keys)
        if note is None:
            self._wrong("bad_signature", number, note="no trusted key signed this checkpoint")
            return
        self._report.checkpoints += 1
        if self._roots.setdefault((note.chain, note.size), note.root) != note.root:
            self._wrong("rewritten", number, note.chain, note.size, note="two checkpoints of this size differ")

    def _event(self, number: int, line: dict[str, Any]) -> None:
        document = line["event"]
        event_id = str(document.get("id", "")) if isinstance(document, dict) else ""
        self._report.events += 1
        if line.get("hash") is None:
            self._report.unproven += 1
            self._wrong("unproven", number, "", 0, event_id, note="this event was not sealed yet")
            return
        chain, seq, previous, found = _place(number, line)
        try:
            computed = chain_hash(chain, seq, previous, canonical(document))
        except (ValueError, TypeError, RecursionError):
            computed = NO_HASH
        where = Finding("edited", number, chain, seq, event_id, found.hex(), computed.hex())
        self._follow(where, previous, found)
        if computed != found:
            self._at(where, "edited", "the event does not have the hash that it had")
        else:
            self._claim(where, line, found)

    def _pruned(self, number: int, text: Any) -> None:
        record = read_prune_record(text, self._keys)
        if record is None:
            self._wrong("bad_signature", number, note="no trusted key signed this prune record")
        else:
            self._ranges.setdefault(record[0], []).extend(record[1])

    def _gap(self, chain: str, first: int, last: int) -> int:
        """Return the first number that is missing without a record of its pruning; 0 when there is none."""
        for start, end in sorted(self._ranges.get(chain, [])):
            if start <= first <= end:
                first = end + 1
        return first if first <= last else 0

    def _follow(self, where: Finding, previous: bytes, found: bytes) -> None:
        """Check the place after the event before."""
        state = self._chains.setdefault(where.chain, _Chain())
        known = len(state.ids)
        state.ids.add(where.event_id)
        if known == len(state.ids):
            self._at(where, "duplicated", "it was there before")
        elif where.seq <= state.last_seq:
            self._at(where, "reordered", "it comes after a later one")
        elif where.seq == state.last_seq + 1:
            if previous != state.last_hash:
                self._at(where, "rewritten", "the chain is broken here")
        elif self._complete and (missing := self._gap(where.chain, state.last_seq + 1, where.seq - 1)):
            self._wrong("missing", where.line, where.chain, missing, note="events are missing from here on")
        if where.seq > state.last_seq:
            state.last_seq, state.last_hash = where.seq, found

    def _claim(self, where: Finding, line: dict[str, Any], leaf: bytes) -> None:
        """Keep what the proof says until the checkpoints are read."""
        proof = line.get("proof")
        if proof is None:
            self._report.unproven += 1
            self._at(where, "unproven", "it is newer than the last checkpoint")
            return
        try:
            size, path = int(proof["size"]), [base64.b64decode(step, validate=True) for step in proof["path"]]
        except (KeyError, TypeError, ValueError, binascii.Error):
            size, path = 0, []
        root = root_from_proof(leaf, where.seq - 1, size, path)
        self._claims.append((where, size, root or NO_HASH))

    def _settle(self) -> None:
        """Compare what the proofs lead to with what was signed."""
        for where, size, root in self._claims:
            signed = self._roots.get((where.chain, size))
            if signed is None:
                self._at(where, "missing", f"no checkpoint of {size}")
            elif signed != root:
                where.expected, where.found = signed.hex(), root.hex()
                self._at(where, "rewritten", f"it is not part of the checkpoint of {size}")
        if self._complete:
            self._find_cut_tails()

    def _find_cut_tails(self) -> None:
        """Name the chains that end before the largest checkpoint of them that was signed."""
        sizes: dict[str, int] = {}
        for chain, size in self._roots:
            sizes[chain] = max(size, sizes.get(chain, 0))
        for chain, size in sizes.items():
            last = self._chains[chain].last_seq if chain in self._chains else 0
            if missing := self._gap(chain, last + 1, size):
                self._wrong("missing", 0, chain, missing, note="events are missing from here to the end")

    def _at(self, where: Finding, verdict: str, note: str) -> None:
        self._report.findings.append(replace(where, verdict=verdict, note=note))

    def _wrong(self, verdict: str, line: int, chain: str = "", seq: int = 0, event_id: str = "", *, note: str) -> None:
        self._report.findings.append(Finding(verdict, line, chain, seq, event_id, note=note))


def _parse(number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"line {number} is not JSON: {error}") from error
    if not isinstance(line, dict):
        raise ExportError(f"line {number} is not an object")
    return line


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _place(number: int, line: dict[str, Any]) -> tuple[str, int, bytes, bytes]:
    try:
        chain, seq = line["chain"], line["seq"]
        previous, found = bytes.fromhex(line["prev"]), bytes.fromhex(line["hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"line {number} does not say where its event belongs") from error
    if not isinstance(chain, str) or isinstance(seq, bool) or not isinstance(seq, int) or not 0 < seq < 2**63:
        raise ExportError(f"line {number} does not say where its event belongs")
    return chain, seq, previous, found


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its status."""
    parser = argparse.ArgumentParser(description="Check an exported audit.")
    parser.add_argument("file", help="the export; - reads standard input")
    parser.add_argument("--key", action="append", required=True, metavar="HEX", help="a public key that you trust")
    parser.add_argument("--complete", action="store_true", help="demand every number from 1 on")
    try:
        options = parser.parse_args(arguments)
        keys = [bytes.fromhex(key) for key in options.key]
        report = _verify_file(options.file, keys, complete=options.complete)
    except SystemExit as error:
        return USAGE if error.code else GOOD
    except (OSError, ValueError, ExportError) as error:
        sys.stderr.write(f"unreadable: {error}\n")
        return USAGE
    for finding in report.findings[:20]:
        sys.stdout.write(finding.sentence() + "\n")
    sys.stdout.write(
        f"{report.verdict}: {report.events} events, {report.checkpoints} checkpoints, {report.unproven} not proven"
        f"{'; filtered, so that left out events do not show' if not options.complete else ''}\n"
    )
    return STATUS[report.verdict]


def _verify_file(name: str, keys: list[bytes], *, complete: bool) -> Report:
    if name == "-":
        return verify(iter(sys.stdin), keys, complete=complete)
    with Path(name).open(encoding="utf-8") as stream:
        return verify(iter(stream), keys, complete=complete)


if __name__ == "__main__":
    sys.exit(main())
