"""`manage.py bundles` asks the real pip, npm, apt and git of this machine, with settings of this test."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as active
from django.core.management import CommandError, call_command

from audit.models import Event
from gatehouse.management.commands.bootstrap import Command as Bootstrap
from tenants.models import Bundle
from tenants.networks import compile_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenants.models import Tenant

pytestmark = pytest.mark.django_db

PAGE = """<!DOCTYPE html><html><body>
<a href="http://10.1.2.3:8080/pip-1.tar.gz#sha256=00">pip-1.tar.gz</a>
<a href="../../files/pip-2.tar.gz">pip-2.tar.gz</a>
<a href="http://127.0.0.1/pip-4.tar.gz">pip-4.tar.gz</a>
<a href="ftp://old.example/pip-3.tar.gz">pip-3.tar.gz</a><a>nothing</a>
</body></html>"""
CREDENTIALS = "Basic dXNlcjpzM2NyZXQ="


class Index(ThreadingHTTPServer):
    """An index on this machine that notes what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def at(self) -> str:
        """Where it is."""
        return f"localhost:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers for one package of each kind."""

    server: Index

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append((self.path, self.headers["Authorization"]))
        package = json.dumps({"dist": {"tarball": "https://10.4.5.6/npm/-/npm-1.tgz"}})
        found = {"/simple/pip/": PAGE, "/registry/npm/latest": package}.get(self.path)
        body = (found or "no").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index on this machine, and clients that are set up for it alone."""
    server = Index()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_PROXY", "PIP_CERT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:s3cret@{server.at}/simple")
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    monkeypatch.setenv("npm_config_globalconfig", str(tmp_path / "globalrc"))
    (tmp_path / "npmrc").write_text(f"registry=http://{server.at}/registry/\n@own:registry=http://10.7.8.9/own/\n")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "here.list").write_text("deb [trusted=yes] http://10.2.2.2/debian bookworm main\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{tmp_path}/sources";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text('[url "https://10.3.3.3:8443/mirror/"]\n\tinsteadOf = https://code.example/\n')
    yield server
    server.shutdown()
    server.server_close()


def run(*arguments: str) -> tuple[str, str]:
    """Run the command; return what it printed and what it said beside."""
    out, err = io.StringIO(), io.StringIO()
    call_command("bundles", *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def entries() -> dict[str, list[str]]:
    """Return what every bundle stands for."""
    return dict(Bundle.objects.values_list("name", "entries"))


def test_clients_and_indexes_say_which_hosts_they_need(index: Index) -> None:
    printed, said = run("discover")

    assert entries() == {
        "debian": ["10.2.2.2:80"],
        "git": ["10.3.3.3:8443"],
        "npm": ["10.4.5.6:443", "10.7.8.9:80", f"{index.at}/http"],
        "python": ["10.1.2.3:8080", f"{index.at}/http"],
    }
    assert "@debian: 10.2.2.2:80\n" in printed
    assert "@python: 127.0.0.1 leads to the host itself or its cloud provider: nobody reaches it." in said
    # Asked once, as the client would be, and the credentials are kept nowhere.
    assert ("/simple/pip/", CREDENTIALS) in index.asked
    assert sorted(path for path, _ in index.asked) == ["/registry/npm/latest", "/simple/pip/"]
    assert "s3cret" not in printed + said + str([event.details for event in Event.objects.all()])


def test_private_addresses_are_granted_on_demand_only(index: Index, acme: Tenant) -> None:
    _, said = run("discover")
    assert {private == [] for private in Bundle.objects.values_list("private", flat=True)} == {True}
    assert "@debian: 10.2.2.2 is at 10.2.2.2, which is not public" in said
    assert "manage.py bundles discover --grant-private" in said
    assert compile_network(acme).document["private"] == []

    _, said = run("discover", "--grant-private")

    assert dict(Bundle.objects.values_list("name", "private")) == {
        "debian": ["10.2.2.2/32"],
        "git": ["10.3.3.3/32"],
        "npm": ["10.4.5.6/32", "10.7.8.9/32"],
        "python": ["10.1.2.3/32"],
    }
    assert "10.2.2.2" not in said
    # The host itself is granted to nobody.
    assert re.search(
        r"^@python: localhost is at .*127\.0\.0\.1.*, this host itself, which no sandbox can reach$", said, re.M
    )
    assert compile_network(acme).document["private"] == ["10.1.2.3/32"]


def test_what_is_not_there_stops_nothing_else(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{index.at}/other")
    run("set", "npm", "npm.example.com:443")

    printed, said = run("discover")

    assert "@npm: npm is not there or does not answer" in said
    assert "@python: localhost did not say where its files are: Not Found" in said
    assert entries() == {
        "debian": [],
        "git": [],
        "npm": ["npm.example.com:443"],
        "python": [f"{index.at}/http"],
    }
    assert "@npm: as it was" in printed


def test_pip_may_be_told_to_use_no_index(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    _, said = run("discover")

    assert entries()["python"] == []
    assert "@python: pip is told to use no index" in said


def test_set_and_list(db: None) -> None:
    assert run("set", "@own", "Index.example.com:443", "--private", "10.9.0.0/16")[0] == (
        "@own stands for index.example.com:443\n"
    )
    rows = [line.split() for line in run("list")[0].splitlines()]
    assert rows[0] == ["bundle", "entries", "private", "source"]
    assert ["@own", "index.example.com:443", "10.9.0.0/16", "an", "operator"] in rows
    assert ["@python", "-", "-", "-"] in rows
    with pytest.raises(CommandError, match=r"entries\[0\]"):
        run("set", "own", "x")


def test_the_first_bootstrap_asks_and_says_what_is_missing(index: Index, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(active.GATEHOUSE, bundles_discovered=True)
    err = io.StringIO()

    Bootstrap(stderr=err, no_color=True)._fill_bundles()

    assert "bootstrap: @debian stands for 10.2.2.2:80, as apt says" in err.getvalue()
    assert "bootstrap: @debian: 10.2.2.2 is at 10.2.2.2, which is not public" in err.getvalue()
    asked = list(index.asked)
    Bootstrap(stderr=err, no_color=True)._fill_bundles()
    assert index.asked == asked


def test_an_operator_may_grant_private_addresses_from_the_first_bootstrap_on(index: Index, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(active.GATEHOUSE, bundles_discovered=True, bundles_grant_private=True)

    Bootstrap(stderr=io.StringIO(), no_color=True)._fill_bundles()

    assert Bundle.objects.get(name="debian").private == ["10.2.2.2/32"]
