"""What every test starts from: a home and a seed of its own, a database file that threads can share, named people."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from django.conf import settings as django_settings
from hypothesis import configuration

from tests import factories, people

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.models import Tenant
    from tests.people import Person

SEED = "5e" * 32
VAULT_KEY = "3a6f192bd765541fb5cb7225416351be5fa724fb8520621a7ede7d4d2935d85e"
_HOME = pytest.StashKey[Path]()
_DATABASE_FIXTURES = frozenset({"db", "transactional_db"})


def pytest_configure(config: pytest.Config) -> None:
    """Give this run a home of its own, so that no test sees or changes an installation's."""
    home = Path(tempfile.mkdtemp(prefix="gatehouse-tests-"))
    (home / "db").mkdir()
    config.stash[_HOME] = home
    configuration.set_hypothesis_home_dir(home / "hypothesis")
    django_settings.GATEHOUSE = dataclasses.replace(
        django_settings.GATEHOUSE,
        home=home,
        seed_text=SEED,
        secret_key_text=SEED,
        ledger_key_text=SEED,
        vault_key_text=VAULT_KEY,
    )
    # The product's hasher is slow on purpose; tests of pages need only that it fits.
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

    if "DATABASE_URL" in os.environ:
        # The whole cluster is thrown away, and a database that threads still hold connections to can't be dropped.
        config.option.reuse_db = True
        _use_redis_of_this_process(f"{os.environ['REDIS_URL'].rpartition('/')[0]}/{_number_of(config)}")


def _use_redis_of_this_process(url: str) -> None:
    django_settings.REDIS_URL = url
    caches: dict[str, Any] = django_settings.CACHES
    caches["default"]["LOCATION"] = url
    layers: dict[str, Any] = django_settings.CHANNEL_LAYERS
    layers["default"]["CONFIG"]["hosts"][0]["address"] = url


def _number_of(config: pytest.Config) -> int:
    """Return 0, or the number of this worker among those that share the tests, from 1."""
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    return int(worker.removeprefix("gw")) + 1 if worker else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what touches the database, and leave out what is about the set that this run is not on.

    `make test` runs what is marked a second time, on PostgreSQL and Redis.
    """
    for item in items:
        names: set[str] = set(getattr(item, "fixturenames", ()))
        if names & _DATABASE_FIXTURES or item.get_closest_marker("django_db") or _drives_a_database(item):
            item.add_marker(pytest.mark.database)
    other = "embedded_only" if "DATABASE_URL" in os.environ else "servers_only"
    left_out = [item for item in items if item.get_closest_marker(other)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _drives_a_database(item: pytest.Item) -> bool:
    # What tests/security looks at are sandboxes and their host, which no database changes.
    return item.get_closest_marker("stack") is not None and "/tests/security/" not in str(item.path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home."""
    home = config.stash.get(_HOME, None)
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, pytestconfig: pytest.Config
) -> None:
    """Use a file as the test database: threads then meet the same locks as in the product."""
    databases: dict[str, dict[str, Any]] = django_settings.DATABASES
    for database in databases.values():
        if database["ENGINE"].endswith("sqlite3"):
            database.setdefault("TEST", {})["NAME"] = str(pytestconfig.stash[_HOME] / "db" / "tests.sqlite3")


@pytest.fixture(autouse=True, scope="session")
def _flushable_ledger() -> Iterator[None]:
    """Let a test that commits be cleaned up after: flushing means deleting, which the ledger's triggers refuse."""
    from django.db import connection
    from django.test import TransactionTestCase

    from audit import appendonly

    case_class: Any = TransactionTestCase
    flush = case_class._fixture_teardown

    def flush_without_triggers(case: TransactionTestCase) -> None:
        appendonly.remove(connection)
        try:
            flush(case)
        finally:
            appendonly.install(connection)

    case_class._fixture_teardown = flush_without_triggers
    yield
    case_class._fixture_teardown = flush


@pytest.fixture
def home(pytestconfig: pytest.Config) -> Path:
    """Return the home of this run."""
    return pytestconfig.stash[_HOME]


@pytest.fixture(autouse=True)
def _no_log_context() -> Iterator[None]:
    """Let no test see what an earlier one bound to the logs."""
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def acme(db: None) -> Tenant:
    """Return Acme, the tenant that most tests are about."""
    return factories.tenant("Acme")


@pytest.fixture
def evil_corp(db: None) -> Tenant:
    """Return Evil Corp, which must never see anything of Acme."""
    return factories.tenant("Evil Corp")


@pytest.fixture
def alice(acme: Tenant) -> Person:
    """Return Alice, owner of Acme."""
    return people.join(acme, "Alice", "owner")


@pytest.fixture
def bob(acme: Tenant) -> Person:
    """Return Bob, developer of Acme."""
    return people.join(acme, "Bob", "developer")


@pytest.fixture
def vera(acme: Tenant) -> Person:
    """Return Vera, viewer of Acme."""
    return people.join(acme, "Vera", "viewer")


@pytest.fixture
def mallory(evil_corp: Tenant) -> Person:
    """Return Mallory, owner of Evil Corp."""
    return people.join(evil_corp, "Mallory", "owner")


@pytest.fixture
def api(alice: Person) -> people.ApiClient:
    """Return the API as Alice's key sees it."""
    return people.ApiClient(alice.key())


@pytest.fixture
def mallorys_api(mallory: Person) -> people.ApiClient:
    """Return the API as Mallory's key sees it."""
    return people.ApiClient(mallory.key())


@pytest.fixture
def anonymous_api(db: None) -> people.ApiClient:
    """Return the API as somebody without a key sees it."""
    return people.ApiClient(None)


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    """Return what is logged during the test, as dictionaries."""
    with structlog.testing.capture_logs() as lines:
        yield lines
