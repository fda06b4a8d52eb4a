"""The settings as a process sees them: embedded without variables, on servers with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = """
import json
from gatehouse import settings as s
print(json.dumps({
    "database": s.DATABASES["default"], "cache": s.CACHES["default"], "layer": s.CHANNEL_LAYERS["default"],
    "broker": s.CELERY["broker_url"], "transport": s.CELERY["broker_transport_options"],
    "hosts": s.ALLOWED_HOSTS, "debug": s.DEBUG, "secure": s.SESSION_COOKIE_SECURE, "session": s.SESSION_COOKIE_NAME,
}, default=str))
"""


def run(tmp_path: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "GATEHOUSE_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env | variables, cwd=ROOT, capture_output=True, text=True, check=False
    )


def settings_with(tmp_path: Path, **variables: str) -> dict[str, Any]:
    done = run(tmp_path, SHOW, **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_embedded_without_variables(tmp_path: Path) -> None:
    found = settings_with(tmp_path)
    home = tmp_path / "home"
    assert found["database"]["NAME"] == str(home / "db/gatehouse.sqlite3")
    assert found["cache"]["BACKEND"].endswith("LocMemCache")
    assert found["layer"]["BACKEND"].endswith("InMemoryChannelLayer")
    assert found["broker"] == "filesystem://"
    assert found["transport"]["data_folder_in"] == found["transport"]["data_folder_out"] == str(home / "broker")
    assert (found["debug"], found["secure"], found["session"]) == (False, False, "session")
    assert not home.exists()


def test_servers_when_they_are_named(tmp_path: Path) -> None:
    found = settings_with(
        tmp_path, DATABASE_URL="postgresql://me@db/gatehouse", REDIS_URL="redis://cache/0", GATEHOUSE_DOMAIN="x.org"
    )
    assert found["database"]["ENGINE"] == "django.db.backends.postgresql"
    assert found["cache"] == {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://cache/0"}
    assert found["layer"]["CONFIG"] == {"hosts": [{"address": "redis://cache/0", "socket_timeout": 30}]}
    assert (found["broker"], found["transport"]) == ("redis://cache/0", {})
    assert (found["secure"], found["session"]) == (True, "__Host-session")


def test_more_hosts_can_be_allowed(tmp_path: Path) -> None:
    assert settings_with(tmp_path, GATEHOUSE_ALLOWED_HOSTS="box.lan, 10.0.0.5")["hosts"][3:] == ["box.lan", "10.0.0.5"]


@pytest.mark.parametrize("module", ["gatehouse.asgi", "gatehouse.celery", "gatehouse.urls"])
def test_entry_points_import_without_a_home(tmp_path: Path, module: str) -> None:
    setup = "import django, os; os.environ['DJANGO_SETTINGS_MODULE']='gatehouse.settings'; django.setup();"
    done = run(tmp_path, f"{setup if module == 'gatehouse.urls' else ''}import {module}")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists()


def test_a_mistake_is_one_sentence_at_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, "import gatehouse.settings", DATABASE_URL="mysql://x/y")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("DATABASE_URL must begin with postgresql://, not 'mysql'.")
