"""The installation is a function of the environment and touches no file until a key is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehouse.env import EnvError
from gatehouse.installation import installation

ROOT = Path("/opt/gatehouse")
SEED = "ab" * 32
SECRETS = ("GATEHOUSE_SEED", "GATEHOUSE_SECRET_KEY", "GATEHOUSE_LEDGER_KEY", "GATEHOUSE_ANCHOR_WEBHOOK")


def test_defaults_need_nothing() -> None:
    place = installation({}, ROOT)
    assert place.home == ROOT / "var"
    assert place.node_socket == ROOT / "var/run/node.sock"
    assert place.database_file == ROOT / "var/db/gatehouse.sqlite3"
    assert (place.bind, place.port, place.domain, place.pool_size) == ("127.0.0.1", 8000, "", 32)
    assert place.public_url == "http://localhost:8000"
    assert place.allowed_hosts() == ["localhost", "127.0.0.1", "[::1]"]


def test_everything_can_be_said() -> None:
    place = installation(
        {
            "GATEHOUSE_HOME": "/srv/gh",
            "GATEHOUSE_PORT": "9000",
            "GATEHOUSE_BIND": "192.0.2.1",
            "GATEHOUSE_DOMAIN": "Sandbox.Example.org",
            "GATEHOUSE_POOL_SIZE": "0",
            "GATEHOUSE_LOG_LEVEL": "DEBUG",
            "GATEHOUSE_SERVICE": "web",
        },
        ROOT,
    )
    assert place.home == Path("/srv/gh")
    assert place.public_url == "https://api.sandbox.example.org"
    assert place.allowed_hosts()[3:] == ["192.0.2.1", "sandbox.example.org", ".sandbox.example.org"]
    assert (place.port, place.pool_size, place.log_level, place.service) == (9000, 0, "DEBUG", "web")


def test_a_port_shows_in_the_address() -> None:
    assert installation({"GATEHOUSE_PORT": "9000"}, ROOT).public_url == "http://localhost:9000"
    assert installation({"GATEHOUSE_PUBLIC_URL": "https://x.org/"}, ROOT).public_url == "https://x.org"


def test_any_address_allows_no_further_host() -> None:
    assert len(installation({"GATEHOUSE_BIND": "0.0.0.0"}, ROOT).allowed_hosts()) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"GATEHOUSE_PORT": "0"},
        {"GATEHOUSE_POOL_SIZE": "-1"},
        {"GATEHOUSE_LOG_LEVEL": "LOUD"},
        {"GATEHOUSE_PUBLIC_URL": "ftp://x"},
    ],
)
def test_mistakes_name_the_variable(wrong: dict[str, str]) -> None:
    with pytest.raises(EnvError, match=next(iter(wrong))):
        installation(wrong, ROOT)


def test_the_seed_comes_from_the_environment_or_its_file(tmp_path: Path) -> None:
    place = installation({"GATEHOUSE_HOME": str(tmp_path)}, ROOT)
    with pytest.raises(EnvError, match=r"seed\.key.*No such file"):
        place.seed()
    place.keys.mkdir()
    place.seed_file.write_text(SEED)
    assert place.seed() == bytes.fromhex(SEED)
    assert installation({"GATEHOUSE_SEED": SEED}, ROOT).seed() == bytes.fromhex(SEED)


def test_the_ledgers_key_comes_from_the_environment_or_from_its_file(tmp_path: Path) -> None:
    place = installation({"GATEHOUSE_HOME": str(tmp_path)}, ROOT)
    with pytest.raises(EnvError, match=r"ledger\.key.*No such file"):
        place.ledger_key()
    place.keys.mkdir()
    place.ledger_key_file.write_text(SEED)
    assert place.ledger_key() == bytes.fromhex(SEED)
    assert installation({"GATEHOUSE_LEDGER_KEY": SEED}, ROOT).ledger_key() == bytes.fromhex(SEED)
    with pytest.raises(EnvError, match="The ledger's key must be 32 bytes"):
        installation({"GATEHOUSE_LEDGER_KEY": "ab"}, ROOT).ledger_key()


@pytest.mark.parametrize("seed", ["ab", "zz" * 32, "ab" * 33])
def test_a_wrong_seed_is_refused_without_showing_it(seed: str) -> None:
    with pytest.raises(EnvError, match="64 hex") as refused:
        installation({"GATEHOUSE_SEED": seed}, ROOT).seed()
    assert seed not in str(refused.value)


def test_the_secret_key_lives_as_long_as_the_process_without_a_file(tmp_path: Path) -> None:
    place = installation({"GATEHOUSE_HOME": str(tmp_path)}, ROOT)
    assert place.secret_key() != place.secret_key()
    place.keys.mkdir()
    place.secret_key_file.write_text("k" * 50)
    assert place.secret_key() == "k" * 50


def test_anchors_are_the_directory_below_the_home_unless_named(tmp_path: Path) -> None:
    place = installation({"GATEHOUSE_HOME": str(tmp_path)}, ROOT)
    assert (place.anchors, place.anchor_directory) == (("directory",), tmp_path / "anchors")
    elsewhere = installation({"GATEHOUSE_ANCHORS": "webhook, directory", "GATEHOUSE_ANCHOR_DIR": "/mnt/worm"}, ROOT)
    assert (elsewhere.anchors, elsewhere.anchor_directory) == (("webhook", "directory"), Path("/mnt/worm"))
    assert installation({"GATEHOUSE_ANCHORS": "none"}, ROOT).anchors == ()


def test_an_unknown_anchor_is_refused() -> None:
    with pytest.raises(EnvError, match="GATEHOUSE_ANCHORS must name some of directory, webhook, or none, not 'tape'"):
        installation({"GATEHOUSE_ANCHORS": "tape"}, ROOT)


def test_a_worker_that_is_to_call_a_webhook_needs_its_url() -> None:
    env = {"GATEHOUSE_ANCHORS": "webhook", "GATEHOUSE_SERVICE": "worker"}
    with pytest.raises(EnvError, match="set GATEHOUSE_ANCHOR_WEBHOOK to its URL"):
        installation(env, ROOT)
    assert installation({**env, "GATEHOUSE_ANCHOR_WEBHOOK": "https://example.com/x"}, ROOT).anchors == ("webhook",)


def test_secrets_do_not_show_when_printed() -> None:
    assert SEED not in repr(installation(dict.fromkeys(SECRETS, SEED), ROOT))


def test_nothing_is_made(tmp_path: Path) -> None:
    installation({"GATEHOUSE_HOME": str(tmp_path / "home")}, ROOT).secret_key()
    assert list(tmp_path.iterdir()) == []
