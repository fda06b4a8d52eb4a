"""Variables are read by typed functions, and each mistake is one sentence that names the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehouse import env as read
from gatehouse.env import EnvError


def test_numbers_have_a_range() -> None:
    assert read.integer({}, "PORT", 8000, minimum=1, maximum=65535) == 8000
    assert read.integer({"PORT": " 80 "}, "PORT", 8000, minimum=1, maximum=65535) == 80
    for value in ("0", "65536", "-1", "8e3", "http", "٣", "1" * 5000):
        with pytest.raises(EnvError, match="PORT must be a whole number from 1 to 65535"):
            read.integer({"PORT": value}, "PORT", 8000, minimum=1, maximum=65535)


def test_yes_and_no_have_several_words() -> None:
    assert [read.boolean({"X": word}, "X") for word in ("1", "true", "YES", "On")] == [True] * 4
    assert [read.boolean({"X": word}, "X", default=True) for word in ("0", "False", "no", "off", "")] == [False] * 5
    assert read.boolean({}, "X", default=True) is True
    with pytest.raises(EnvError, match="X must be true or false, not 'maybe'"):
        read.boolean({"X": "maybe"}, "X")


def test_lists_skip_empty_entries() -> None:
    assert read.names({"HOSTS": " a, ,b,"}, "HOSTS") == ["a", "b"]
    assert read.names({}, "HOSTS") == []


def test_choices_are_checked() -> None:
    assert read.choice({}, "LEVEL", "INFO", ["INFO", "DEBUG"]) == "INFO"
    with pytest.raises(EnvError, match="LEVEL must be one of INFO, DEBUG, not 'loud'"):
        read.choice({"LEVEL": "loud"}, "LEVEL", "INFO", ["INFO", "DEBUG"])


def test_a_secret_comes_from_its_variable_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    assert read.secret({}, "SEED") is None
    assert read.secret({"SEED": "hunter2"}, "SEED") == "hunter2"
    assert read.secret({"SEED_FILE": str(file)}, "SEED") == "hunter2"


def test_a_secret_file_must_be_usable(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(EnvError, match=r"SEED_FILE names .*missing, which can't be read: No such file"):
        read.secret({"SEED_FILE": str(tmp_path / "missing")}, "SEED")
    with pytest.raises(EnvError, match="which is empty"):
        read.secret({"SEED_FILE": str(empty)}, "SEED")
    with pytest.raises(EnvError, match="which is not text"):
        read.secret({"SEED_FILE": str(binary)}, "SEED")
    with pytest.raises(EnvError, match="Set SEED or SEED_FILE, not both"):
        read.secret({"SEED": "x", "SEED_FILE": str(empty)}, "SEED")


def test_a_database_url_names_a_postgresql_server() -> None:
    found = read.postgres({"DATABASE_URL": "postgresql://me:p%40ss@db.local:5433/gatehouse?sslmode=require"})
    assert found is not None
    pool = {"min_size": 1, "max_size": 30, "max_waiting": 100, "timeout": 6, "reconnect_timeout": 2}
    assert found["OPTIONS"] == {"pool": pool, "connect_timeout": 5, "sslmode": "require"}
    assert {name: found[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT", "CONN_MAX_AGE")} == {
        "NAME": "gatehouse",
        "USER": "me",
        "PASSWORD": "p@ss",
        "HOST": "db.local",
        "PORT": "5433",
        "CONN_MAX_AGE": 0,
    }


def test_a_socket_directory_may_stand_for_the_host() -> None:
    found = read.postgres({"DATABASE_URL": "postgresql://me@/gatehouse?host=/run/postgresql"})
    assert found is not None
    assert found["HOST"] == "/run/postgresql"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://db/x", "must begin with postgresql://, not 'mysql'"),
        ("postgresql://db", "must name a database"),
        ("postgresql://db:port/x", "is not a URL"),
        ("postgresql://db/x?sslmode=maybe", "unknown sslmode 'maybe'"),
        ("postgresql://db/x?color=red", "unknown parameter 'color'"),
    ],
)
def test_other_database_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(EnvError, match=said) as refused:
        read.postgres({"DATABASE_URL": url})
    assert str(refused.value).startswith("DATABASE_URL")


def test_errors_do_not_show_the_password() -> None:
    with pytest.raises(EnvError) as refused:
        read.postgres({"DATABASE_URL": "postgresql://me:hunter2@db/x?sslmode=maybe"})
    assert "hunter2" not in str(refused.value)


def test_sqlite_is_durable_and_takes_turns() -> None:
    options = read.sqlite(Path("/somewhere/db"))["OPTIONS"]
    assert options == {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }


def test_redis_urls_are_checked() -> None:
    assert read.redis({}) is None
    assert read.redis({"REDIS_URL": "rediss://:pw@cache:6380/1"}) == "rediss://:pw@cache:6380/1"
    with pytest.raises(EnvError, match="REDIS_URL must begin with redis://"):
        read.redis({"REDIS_URL": "http://cache"})
