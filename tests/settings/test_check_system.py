"""System checks say what is not safe, with a stable id and a hint."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import CheckMessage, run_checks

from gatehouse import checks
from tests.conftest import VAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def place(settings: Any, tmp_path: Path) -> Any:
    settings.GATEHOUSE = dataclasses.replace(
        settings.GATEHOUSE, home=tmp_path, seed_text=None, secret_key_text=None, vault_key_text=None
    )
    settings.GATEHOUSE.keys.mkdir()
    for path, text in (
        (settings.GATEHOUSE.seed_file, "ab" * 32),
        (settings.GATEHOUSE.secret_key_file, "k" * 50),
        (settings.GATEHOUSE.vault_key_file, VAULT_KEY),
    ):
        path.write_text(text)
        path.chmod(0o640)
    return settings.GATEHOUSE


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def test_a_good_installation_has_nothing_to_say(place: Any, settings: Any) -> None:
    settings.DEBUG = False
    for check in (
        *(checks.debug_is_off, checks.key_files_are_closed, checks.seed_is_usable, checks.keys_exist),
        *(checks.vaults_are_usable, checks.authorities_are_readable),
    ):
        assert check(None) == []


def test_debug_is_an_error(settings: Any) -> None:
    settings.DEBUG = True
    assert ids(checks.debug_is_off(None)) == ["gatehouse.E001"]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o641])
def test_open_key_files_are_an_error(place: Any, mode: int) -> None:
    place.seed_file.chmod(mode)
    (found,) = checks.key_files_are_closed(None)
    assert found.id == "gatehouse.E002"
    assert f"{mode:04o}" in found.msg


@pytest.mark.parametrize(
    ("text", "said"),
    [("ab", "holds something that is no key"), ("00" * 32, "anybody would"), (" ", "no key")],
)
def test_a_vaults_key_that_is_none_is_an_error(place: Any, text: str, said: str) -> None:
    place.vault_key_file.write_text(text)
    (found,) = checks.vaults_are_usable(None)
    assert (found.id, said in found.msg) == ("gatehouse.E007", True)


@pytest.mark.parametrize("made", [str, lambda key: hashlib.sha256(key.encode()).hexdigest()])
def test_a_vaults_key_made_of_djangos_key_is_an_error(place: Any, settings: Any, made: Callable[[str], str]) -> None:
    settings.SECRET_KEY = hashlib.sha256(b"django").hexdigest()
    place.vault_key_file.write_text(made(settings.SECRET_KEY))
    (found,) = checks.vaults_are_usable(None)
    assert (found.id, "another one of this installation" in found.msg) == ("gatehouse.E007", True)


def test_vaults_that_are_not_configured_right_are_an_error(place: Any, settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "vaults.toml"
    file.write_text('[company]\nkind = "safe"\n')
    settings.GATEHOUSE = dataclasses.replace(place, vaults_file=file)
    (found,) = checks.vaults_are_usable(None)
    assert found.id == "gatehouse.E007"
    assert found.msg == "The vault company has the kind 'safe': there is azure_key_vault."


@pytest.mark.parametrize("text", [None, "", "no certificate"], ids=["missing", "empty", "no PEM"])
def test_authorities_that_cannot_be_read_are_an_error(
    place: Any, settings: Any, tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    settings.GATEHOUSE = dataclasses.replace(place, broker_ca_file=file)
    (found,) = checks.authorities_are_readable(None)
    assert found.id == "gatehouse.E008"
    assert str(file) in found.msg


def test_a_broken_seed_is_an_error(place: Any, tmp_path: Path, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(place, seed_text="ab")
    (found,) = checks.seed_is_usable(None)
    assert found.id == "gatehouse.E003"


def test_missing_keys_are_an_error_when_deploying(place: Any) -> None:
    place.seed_file.unlink()
    place.secret_key_file.unlink()
    place.vault_key_file.unlink()
    assert ids(checks.keys_exist(None)) == ["gatehouse.E004", "gatehouse.E004", "gatehouse.E004"]
    assert checks.seed_is_usable(None) == checks.key_files_are_closed(None) == checks.vaults_are_usable(None) == []


def test_the_test_database_keeps_its_log(db: None) -> None:
    assert checks.sqlite_keeps_its_log(None, databases=["default"]) == []


class Careless:
    """A SQLite database that keeps no log and does not wait for its disk."""

    vendor = "sqlite"

    def cursor(self) -> Careless:
        return self

    def __enter__(self) -> Careless:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self, sql: str) -> Careless:
        return self

    def fetchone(self) -> tuple[object]:
        return (0,)


def test_a_database_without_its_log_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "connections", {"default": Careless()})
    assert ids(checks.sqlite_keeps_its_log(None, databases=["default"])) == ["gatehouse.E005"]


def test_the_checks_are_registered(settings: Any, place: Any) -> None:
    settings.DEBUG = True
    assert "gatehouse.E001" in ids(run_checks(include_deployment_checks=True))
