"""What secrets are called in a Key Vault: names that it takes, that never meet, and that lead back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.vaults.azurenames import (
    Owner,
    entry_of,
    is_entry,
    is_of,
    owner_of,
    prefix_of,
    tagged_owner,
    tags_of,
)
from tenants.vaults.contract import Ref

ACME = "0192f3c0-8a5b-7c3d-9e1f-112233445566"
HEX = "0192f3c08a5b7c3d9e1f112233445566"
SECRET = "c0ffee00" * 4

names = st.text("abxyz019_-", min_size=1, max_size=128)
ids = st.text("0123456789abcdef", min_size=32, max_size=32)
refs = st.builds(Ref, ids, names, ids)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("openai-key", "openai-key"),
        ("openai_key", "openaix-key"),
        ("x-api_key", "xx-apix-key"),
        ("a--b", "a--b"),
        ("x0", "xx0"),
    ],
)
def test_an_entry_shows_whose_it_is(name: str, written: str) -> None:
    entry = entry_of(Ref(ACME, name, SECRET))
    assert entry == f"{HEX}--{written}--{SECRET}"
    assert entry.startswith(prefix_of(ACME))
    assert owner_of(entry) == Owner(HEX, name, SECRET)
    assert owner_of(entry.upper()) == Owner(HEX, name, SECRET)


def test_a_name_that_is_too_long_is_cut_and_says_so() -> None:
    ref = Ref(ACME, "k" * 128, SECRET)
    entry = entry_of(ref)
    assert len(entry) <= 127
    owner = owner_of(entry)
    assert owner is not None
    assert re.fullmatch("k{57}…", owner.name)
    assert tagged_owner(tags_of(ref)) == Owner(HEX, "k" * 128, SECRET)


@given(refs)
def test_every_entry_is_one_that_a_vault_takes_and_leads_back(ref: Ref) -> None:
    entry = entry_of(ref)
    assert is_entry(entry)
    owner = owner_of(entry)
    assert owner is not None
    assert is_of(ref, owner)
    assert owner.name in {ref.name, f"{ref.name[: len(owner.name) - 1]}…"}
    tagged = tagged_owner(tags_of(ref))
    assert tagged == Owner(ref.tenant_id, ref.name, ref.secret_id)


@given(refs, refs)
def test_two_secrets_never_have_the_same_entry(one: Ref, other: Ref) -> None:
    same = (one.tenant_id, one.secret_id) == (other.tenant_id, other.secret_id)
    assert same or entry_of(one).lower() != entry_of(other).lower()


@given(names, names)
def test_names_that_differ_are_written_differently(one: str, other: str) -> None:
    written = {name: entry_of(Ref(ACME, name, SECRET)) for name in (one, other) if len(name) < 29}
    assert len(set(written.values())) == len(written)


@pytest.mark.parametrize(
    "entry", ["openai-key", "gatehouse--health", f"{HEX}--{SECRET}", f"{HEX}--ax1--{SECRET}", f"{HEX}--x--{SECRET}"]
)
def test_an_entry_of_somebody_elses_is_nobodys_secret(entry: str) -> None:
    assert owner_of(entry) is None


@pytest.mark.parametrize("tags", [None, {}, {"team": "a"}, {"gatehouse-tenant": HEX}])
def test_tags_of_somebody_elses_name_no_owner(tags: dict[str, str] | None) -> None:
    assert tagged_owner(tags) is None


@pytest.mark.parametrize("entry", ["", "a" * 128, "a/b", "a_b", "../keys/k", "a?b", "ä", "a b", "a\n"])
def test_what_no_entry_can_be_called_is_never_asked_for(entry: str) -> None:
    assert not is_entry(entry)
