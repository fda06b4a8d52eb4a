"""`manage.py bootstrap` makes what is missing: users, directories, keys, operator, tenant and the first key, once."""

from __future__ import annotations

import dataclasses
import grp
import io
import os
import pwd
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings as active
from django.core.management import CommandError, call_command

from audit.models import Event
from gatehouse.management import hostsetup
from sandboxes.models import Template
from sandboxes.node.builds.recipe import BASE
from sandboxes.node.builds.store import Manifest, TemplateStore
from tenants.authentication import authenticate
from tenants.models import ApiKey, Membership, Tenant, User

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.django_db

KEY_LINES = re.compile(
    r"\Aexport E2B_API_KEY=(?P<key>e2b_[0-9a-f]{40})\n"
    r"export E2B_API_URL=http://localhost:8000\n"
    r"export E2B_SANDBOX_URL=http://localhost:8000\n\Z"
)


@pytest.fixture
def home(tmp_path: Path, settings: Any) -> Path:
    """An installation of its own that does not exist yet."""
    # The real one takes a quarter of a second on purpose.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.GATEHOUSE = dataclasses.replace(
        active.GATEHOUSE,
        home=tmp_path / "home",
        public_url="http://localhost:8000",
        seed_text=None,
        secret_key_text=None,
        ledger_key_text=None,
        bundles_discovered=False,
    )
    return tmp_path / "home"


def bootstrap() -> tuple[str, str]:
    """Run the command; return what it printed for programs and what it said to the operator."""
    out, err = io.StringIO(), io.StringIO()
    call_command("bootstrap", stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def build(home: Path, build_id: str) -> None:
    """Put a finished build of `base` into the store."""
    store = TemplateStore(home)
    store.prepare()
    (store.directory / build_id / "rootfs").mkdir(parents=True)
    manifest = Manifest(
        build_id, "base", BASE.digest(), "12.9", "x86_64", "user", BASE.resources, 1, 1, (), "2026-01-02T03:04:05.678Z"
    )
    (store.directory / build_id / "manifest.json").write_text(manifest.to_json())
    (store.directory / "base.current").write_text(build_id)


def test_it_works(home: Path) -> None:
    build(home, "b" * 32)
    out, err = bootstrap()

    shown = KEY_LINES.match(out)
    assert shown, out
    actor = authenticate(shown["key"], origin=None, request_id=None)
    tenant = Tenant.objects.get()
    assert (tenant.slug, actor.tenant_id) == ("default", tenant.id.hex)
    assert "API key is shown only now" in err


def test_the_operator_gets_a_password_that_is_said_once(home: Path) -> None:
    _, err = bootstrap()

    password = re.search(r"the operator `operator`, whose password is shown only now: (\S+)", err)
    assert password
    operator = User.objects.get()
    assert operator.check_password(password[1])
    assert operator.is_staff
    assert Membership.everywhere().get().role == "owner"


def test_a_second_run_changes_and_shows_nothing(home: Path) -> None:
    build(home, "b" * 32)
    bootstrap()
    before = _everything(home)
    out, err = bootstrap()

    assert (out, err) == ("", "")
    assert _everything(home) == before


def test_it_is_recorded(home: Path) -> None:
    build(home, "b" * 32)
    bootstrap()

    codes = sorted(Event.objects.values_list("code", flat=True))
    assert codes == ["apikey.created", "member.added", *["template.registered"] * 4, "tenant.created"]


def test_one_build_makes_a_public_template_for_each_way_to_isolate(home: Path) -> None:
    build(home, "b" * 32)
    bootstrap()

    assert set(Template.objects.values_list("name", "tier", "profile", "runtime")) == {
        ("base", "container", "workstation", ""),
        ("base-hardened", "container", "hardened", ""),
        ("base-process", "process", "hardened", ""),
        ("base-gvisor", "container", "workstation", "runsc"),
    }


def test_a_revoked_key_is_not_replaced(home: Path) -> None:
    bootstrap()
    ApiKey.everywhere().update(revoked_at="2026-01-02T03:04:05Z")

    assert bootstrap() == ("", _no_template())
    assert ApiKey.everywhere().count() == 1


def test_an_installation_with_other_tenants_gets_none(home: Path) -> None:
    Tenant.objects.create(name="Acme", slug="acme")
    out, _ = bootstrap()

    assert out == ""
    assert [tenant.slug for tenant in Tenant.objects.all()] == ["acme"]


def test_a_new_build_of_the_template_is_registered(home: Path) -> None:
    build(home, "b" * 32)
    bootstrap()
    build(home, "c" * 32)
    _, err = bootstrap()

    assert f"registered build {'c' * 32} as base, base-hardened, base-process, base-gvisor" in err
    assert set(Template.objects.values_list("build_id", flat=True)) == {"c" * 32}
    template = Template.objects.get(name="base")
    assert (template.cpu_milli, template.memory_mib, template.disk_mib, template.pids) == (1000, 512, 1024, 256)


def test_a_template_that_is_not_built_is_told(home: Path) -> None:
    _, err = bootstrap()

    assert _no_template() in err
    assert not Template.objects.exists()


def test_each_directory_has_its_owner_and_mode(home: Path) -> None:
    bootstrap()
    found = {}
    for name in hostsetup.DIRECTORIES:
        info = (home / name).stat()
        assert info.st_uid == 0
        found[name] = (stat.S_IMODE(info.st_mode), grp.getgrgid(info.st_gid).gr_name)

    assert found == {
        ".": (0o755, "root"),
        "keys": (0o711, "root"),
        "db": (0o2770, "gatehouse"),
        "broker": (0o2770, "gatehouse"),
        "broker/control": (0o2770, "gatehouse"),
        "run": (0o755, "root"),
        "run/guests": (0o750, "gatehouse-gateway"),
        "egress": (0o750, "gatehouse-egress"),
        "static": (0o755, "root"),
        "node": (0o700, "root"),
        "templates": (0o711, "root"),
        "anchors": (0o770, "gatehouse-worker"),
    }


def test_keys_are_random_and_closed(home: Path) -> None:
    bootstrap()

    for name, group in hostsetup.KEYS.items():
        path = home / "keys" / name
        assert re.fullmatch(r"[0-9a-f]{64}\n", path.read_text())
        info = path.stat()
        assert (info.st_uid, grp.getgrgid(info.st_gid).gr_name, stat.S_IMODE(info.st_mode)) == (0, group, 0o640)
    assert len({(home / "keys" / name).read_text() for name in hostsetup.KEYS}) == len(hostsetup.KEYS)


def test_everybody_may_read_the_public_half_of_the_ledgers_key(home: Path) -> None:
    bootstrap()
    public = home / "keys" / "ledger.pub"
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((home / "keys" / "ledger.key").read_text()))
    assert public.read_text() == private.public_key().public_bytes_raw().hex() + "\n"
    assert stat.S_IMODE(public.stat().st_mode) == 0o644


def test_service_users_have_no_way_to_sign_in(home: Path) -> None:
    bootstrap()

    for name in ("gatehouse-web", "gatehouse-worker", "gatehouse-gateway", "gatehouse-egress"):
        user = pwd.getpwnam(name)
        assert user.pw_uid < 1000
        assert user.pw_shell == "/usr/sbin/nologin"
        assert grp.getgrgid(user.pw_gid).gr_name == name
    assert sorted(grp.getgrnam("gatehouse").gr_mem) == ["gatehouse-web", "gatehouse-worker"]


def test_anybody_but_root_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(CommandError, match="needs root: run it with sudo"):
        bootstrap()
    assert not home.exists()
    assert not Tenant.objects.exists()


def test_a_host_that_refuses_is_told_in_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise hostsetup.HostSetupError("`groupadd --system gatehouse` failed: no space left.")

    monkeypatch.setattr(hostsetup, "make_accounts", refuse)

    with pytest.raises(CommandError, match=r"^The host could not be made ready: `groupadd .* failed: no space left\.$"):
        bootstrap()
    assert not Tenant.objects.exists()


def _no_template() -> str:
    return "bootstrap: template base is not built yet: `make run` or `python -m sandboxes.node.builds` builds it\n"


def _everything(home: Path) -> tuple[object, ...]:
    files = {path: (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in home.rglob("*") if path.is_file()}
    return files, Event.objects.count(), ApiKey.everywhere().count(), User.objects.get().password
