"""`gatehouse cp`: files, folders and streams, in and out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

pytestmark = pytest.mark.stack


def test_a_file_in_and_out_again(shell: Shell, box: str, tmp_path: Path) -> None:
    there, back = tmp_path / "there.bin", tmp_path / "back.bin"
    there.write_bytes(os.urandom(5_000_000))

    shell.ok("cp", str(there), f"{box}:/home/user/deep/er/file.bin")
    shell.ok("cp", f"{box}:/home/user/deep/er/file.bin", str(back))

    assert back.read_bytes() == there.read_bytes()
    assert shell.ok("exec", box, "stat", "-c", "%U %s", "/home/user/deep/er/file.bin") == "user 5000000"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.bin", "there.bin"]


def test_into_a_folder_it_keeps_its_name(shell: Shell, box: str, tmp_path: Path) -> None:
    (tmp_path / "a b'$(id).txt").write_text("odd name")

    shell.ok("cp", str(tmp_path / "a b'$(id).txt"), f"{box}:/tmp")
    shell.ok("cp", f"{box}:/tmp/a b'$(id).txt", str(tmp_path / "x.txt"))
    (tmp_path / "sub").mkdir()
    shell.ok("cp", f"{box}:/tmp/a b'$(id).txt", str(tmp_path / "sub"))

    assert (tmp_path / "x.txt").read_text() == "odd name"
    assert (tmp_path / "sub" / "a b'$(id).txt").read_text() == "odd name"


def test_from_standard_input_and_to_standard_output(shell: Shell, box: str) -> None:
    sent = os.urandom(700_000)
    assert shell.run("cp", "-", f"{box}:/tmp/stream", stdin=sent)[0] == 0
    assert shell.run("cp", f"{box}:/tmp/stream", "-") == (0, sent, b"")
    assert shell.run("cp", "-", f"{box}:/tmp/empty", stdin=b"")[0] == 0
    assert shell.run("cp", f"{box}:/tmp/empty", "-") == (0, b"", b"")


def test_a_folder_in_and_out_again(shell: Shell, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "one.txt").write_text("1")
    (tree / "sub" / "two.txt").write_text("2")
    (tree / "link").symlink_to("/etc/passwd")

    code, _, err = shell.run("cp", "-r", str(tree), f"{box}:/tmp/tree")
    assert code == 0, err
    shell.ok("exec", box, "ln", "-s", "/etc/shadow", "/tmp/tree/inner-link")
    code, _, err = shell.run("cp", "-r", f"{box}:/tmp/tree", str(tmp_path / "back"))

    assert (code, err) == (0, b"left out /tmp/tree/inner-link: no file\n")
    back = tmp_path / "back"
    assert (back / "one.txt").read_text() == "1"
    assert (back / "sub" / "two.txt").read_text() == "2"
    assert (back / "sub" / "empty").is_dir()
    assert not (back / "inner-link").exists()


def test_what_cannot_be_copied_says_why(shell: Shell, box: str, tmp_path: Path) -> None:
    assert shell.failed("cp", "a", "b") == (
        2,
        "One side must be SANDBOX:PATH, as in `gatehouse cp report.csv ID:/home/user/`.",
    )
    assert shell.failed("cp", str(tmp_path / "missing"), f"{box}:/tmp/x")[1].startswith("There is no ")
    assert shell.failed("cp", str(tmp_path), f"{box}:/tmp/x")[1] == f"{tmp_path} is a folder: use -r."
    assert shell.failed("cp", f"{box}:/tmp", str(tmp_path))[1] == "/tmp is a folder: use -r."
    code, said = shell.failed("cp", f"{box}:/tmp/missing", str(tmp_path / "x"))
    assert code == 1
    assert "/tmp/missing" in said
    assert not (tmp_path / "x").exists()
    assert list(tmp_path.iterdir()) == []
