"""What a sandbox may reach: said at create, shown, changed while it runs, kept over a pause."""

from __future__ import annotations

from typing import Any

import pytest
from e2b import CommandExitException, SandboxException

EVERYWHERE = "0.0.0.0/0"
PROXY = {"address": "proxy.example.com:1080", "username": "carol", "password": "pa55word"}


async def test_lists_are_shown_as_they_count(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(network={"allow_out": ["API.example.com", "8.8.8.8"], "deny_out": [EVERYWHERE]})

    shown = (await ok(sandbox.get_info())).network
    assert (shown["allow_out"], shown["deny_out"]) == (["api.example.com", "8.8.8.8"], [EVERYWHERE])
    assert shown["allow_public_traffic"] is True


async def test_all_is_denied_and_given_back(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(allow_internet_access=False)
    assert (await ok(sandbox.get_info())).allow_internet_access is False

    await ok(sandbox.update_network({}))
    assert (await ok(sandbox.get_info())).allow_internet_access is None

    await ok(sandbox.update_network({"allow_internet_access": False}))
    assert (await ok(sandbox.get_info())).allow_internet_access is False


async def test_an_update_replaces_everything(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(network={"deny_out": ["1.2.3.4"], "allow_public_traffic": False})

    await ok(sandbox.update_network({"allow_out": ["1.1.1.1"], "deny_out": [EVERYWHERE]}))

    shown = (await ok(sandbox.get_info())).network
    assert (shown["allow_out"], shown["deny_out"]) == (["1.1.1.1"], [EVERYWHERE])
    assert shown["allow_public_traffic"] is False


async def test_an_upstream_proxy_is_shown_without_its_password(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(network={"egress_proxy": PROXY})

    shown = (await ok(sandbox.get_info())).network["egress_proxy"]
    assert (shown["address"], shown["username"], "password" in shown) == (PROXY["address"], "carol", False)


async def test_it_is_kept_over_a_pause(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(network={"deny_out": ["1.2.3.4"]})

    await ok(sandbox.pause())
    again = await ok(sandbox.connect())

    assert (await ok(again.get_info())).network["deny_out"] == ["1.2.3.4"]


async def test_names_alone_are_no_list(fresh: Any, ok: Any) -> None:
    with pytest.raises(SandboxException, match="you must include 'ALL_TRAFFIC' in deny out"):
        await fresh(network={"allow_out": ["api.example.com"]})
    sandbox = await fresh()
    with pytest.raises(SandboxException, match=r"invalid denied CIDR evil\.example"):
        await ok(sandbox.update_network({"deny_out": ["evil.example"]}))


async def test_what_is_denied_fails_fast(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(allow_internet_access=False)

    for url in ("https://1.1.1.1/", "https://example.com/", "http://example.com/"):
        with pytest.raises(CommandExitException) as refused:
            await ok(sandbox.commands.run(f"curl -fsS --connect-timeout 3 --max-time 5 {url}"))
        assert (refused.value.stdout, "403" in refused.value.stderr) == ("", True)
