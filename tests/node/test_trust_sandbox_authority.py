"""A sandbox with header rules trusts an authority of its own, at every tier; its key is nowhere inside."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sandboxes.node.services import EgressService
from tests.node import rig
from tests.node.egress_double import EgressDouble, standing_in
from tests.node.rig import WORLDS, document, eventually, open_network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN = "/opt/gatehouse/egress/ca-bundle.pem"
TRUST = ["AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "DENO_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT"]
TRUST += ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"]
ROOM = {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 256}
WAYS: dict[str, dict[str, Any]] = {**WORLDS, "runsc": {"runtime": "runsc", "resources": ROOM}}
HOST = "api.example.com"


def rules(*hosts: str, version: int = 1) -> dict[str, Any]:
    """Return a document that sets a header on requests to these hosts."""
    headers = {"Authorization": "Bearer ${secrets.key}"}
    bound = [{"host": host, "set": headers, "methods": None, "paths": None} for host in hosts]
    return document(*(f"{host}:443" for host in hosts), version=version, rules=bound)


def bound(*hosts: str) -> dict[str, Any]:
    """Return what asks for a way out with such a document."""
    return {"network": {"mode": "open", "document": rules(*hosts)}}


@dataclass
class Line:
    """A node and the double of egress that it speaks to."""

    node: Rig
    egress: EgressDouble

    async def seen(self, sandbox: Sandbox) -> list[x509.Certificate]:
        """Return the authorities of sandboxes that the sandbox trusts."""
        done = await self.node.run(sandbox, f"cat {SEEN}")
        texts = re.findall(r"-----BEGIN[^#]*?END CERTIFICATE-----", done.stdout)
        listed = [ssl.PEM_cert_to_DER_cert(text) for text in texts]
        # The template's own are there as ever.
        assert len(listed) > 100
        return [x509.load_der_x509_certificate(one) for one in listed if b"Gatehouse sandbox authority" in one]

    def told(self, sandbox: Sandbox) -> dict[str, str] | None:
        """Return the authority that egress was told of last."""
        authority: dict[str, str] | None = self.egress.puts(sandbox.spec.id)[-1].get("ca")
        return authority


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Line]:
    """Return a node whose egress is the double."""
    with pytest.MonkeyPatch.context() as patch, rig.new_home() as home:
        patch.setattr(EgressService, "start", lambda _self: None)
        async with (
            standing_in(home / "run" / "egress.sock") as egress,
            rig.running_node(home, GATEHOUSE_NODE_EGRESS="1") as node,
        ):
            yield Line(node, egress)


@pytest_asyncio.fixture(loop_scope="module")
async def line(served: Line) -> AsyncIterator[Line]:
    """Return the same with no sandbox yet."""
    yield served
    await served.node.stop_all()


def pem(certificate: x509.Certificate) -> str:
    """Return it as the node writes it."""
    return certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("world", WAYS)
async def test_its_bundle_holds_what_egress_vouches_with(line: Line, world: str) -> None:
    sandbox = await line.node.start(**(WAYS[world] | bound(HOST)))
    told = line.told(sandbox)
    assert told is not None
    (authority,) = await line.seen(sandbox)
    assert pem(authority) == told["certificate"]
    done = await line.node.run(sandbox, "env | grep /opt/gatehouse | sort")
    assert done.stdout.splitlines() == [f"{name}={SEEN}" for name in TRUST]


@pytest.mark.parametrize("world", WAYS)
async def test_without_rules_it_is_the_templates_and_costs_nothing(line: Line, world: str) -> None:
    sandbox = await line.node.start(**(WAYS[world] | open_network(f"{HOST}:443")))
    assert line.told(sandbox) is None
    done = await line.node.run(sandbox, f"readlink {SEEN}; cmp {SEEN} /etc/ssl/certs/ca-certificates.crt && echo same")
    assert done.stdout.splitlines() == ["/etc/ssl/certs/ca-certificates.crt", "same"]
    assert await line.seen(sandbox) == []
    assert not line.node.node.maker.doors.key(sandbox.runtime.slot(sandbox.state)).exists()


async def test_what_its_owner_sets_counts(line: Line) -> None:
    sandbox = await line.node.start(env={"SSL_CERT_FILE": "/mine.pem"}, **bound(HOST))
    done = await line.node.run(sandbox, "echo $SSL_CERT_FILE $CURL_CA_BUNDLE")
    assert done.stdout.split() == ["/mine.pem", SEEN]


@pytest.mark.parametrize("world", WAYS)
async def test_rules_that_come_later_are_trusted_before_egress_knows_them(line: Line, world: str) -> None:
    sandbox = await line.node.start(**(WAYS[world] | open_network(f"{HOST}:443")))
    await line.node.keeper.set_network(sandbox.spec.id, 1, rules(HOST, version=2), None)
    (first,) = await line.seen(sandbox)
    before = line.told(sandbox)
    await line.node.keeper.set_network(sandbox.spec.id, 1, rules(HOST, "*.example.org", version=3), None)
    (second,) = await line.seen(sandbox)
    after = line.told(sandbox)
    assert before is not None
    assert after is not None
    assert (before["certificate"], after["certificate"]) == (pem(first), pem(second))
    assert before["key"] == after["key"]
    named = second.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert named == [x509.DNSName("api.example.com"), x509.DNSName("example.org")]


async def test_a_document_with_the_same_hosts_changes_no_certificate(line: Line) -> None:
    sandbox = await line.node.start(**bound(HOST))
    before = line.told(sandbox)
    await line.node.keeper.set_network(sandbox.spec.id, 1, rules(HOST, version=2), None)
    assert line.told(sandbox) == before


async def test_without_rules_again_nothing_is_trusted_any_more(line: Line) -> None:
    sandbox = await line.node.start(**bound(HOST))
    plain = document(f"{HOST}:443", version=2)
    await line.node.keeper.set_network(sandbox.spec.id, 1, plain, None)
    assert await line.seen(sandbox) == []
    assert line.told(sandbox) is None


@pytest.mark.parametrize("world", WAYS)
async def test_the_key_is_nowhere_inside(line: Line, world: str) -> None:
    sandbox = await line.node.start(**(WAYS[world] | bound(HOST)))
    root = "user" if WAYS[world].get("profile") == "hardened" else "root"
    listed = await line.node.run(sandbox, "ls -a /opt/gatehouse/egress /opt/gatehouse/egress/..", user=root)
    assert ".key" not in listed.stdout
    found = await line.node.run(
        sandbox, "grep -rl 'PRIVATE KEY' /opt/gatehouse /run /tmp /proc/self/environ /proc/1/environ", user=root
    )
    assert found.stdout == ""
    key = line.node.node.maker.doors.key(sandbox.runtime.slot(sandbox.state))
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, 0)


async def test_the_key_goes_with_the_sandbox(line: Line) -> None:
    sandbox = await line.node.start(**bound(HOST))
    key = line.node.node.maker.doors.key(sandbox.runtime.slot(sandbox.state))
    assert key.exists()
    await line.node.keeper.stop(sandbox.spec.id, None)
    await eventually(lambda: not key.exists())


async def test_an_egress_that_is_started_again_is_told_the_same(line: Line) -> None:
    sandbox = await line.node.start(**bound(HOST))
    before, connections = line.told(sandbox), line.egress.connections
    line.egress.hang_up()
    await eventually(lambda: line.egress.connections > connections and len(line.egress.puts(sandbox.spec.id)) == 2)
    assert line.told(sandbox) == before


async def test_the_next_node_goes_on_with_the_key() -> None:
    with pytest.MonkeyPatch.context() as patch, rig.new_home() as home:
        patch.setattr(EgressService, "start", lambda _self: None)
        async with standing_in(home / "run" / "egress.sock") as egress:
            async with rig.running_node(home, GATEHOUSE_NODE_EGRESS="1") as node:
                sandbox = await node.start("alice", **bound(HOST))
                plain = await node.start("bob", **open_network(f"{HOST}:443"))
                await node.hand_over()
            async with rig.running_node(home, GATEHOUSE_NODE_EGRESS="1") as node:
                await eventually(lambda: egress.ops()[-1] == "synced")
                line = Line(node, egress)
                first, second = (put["ca"] for put in egress.puts("alice"))
                assert first["key"] == second["key"]
                (authority,) = await line.seen(sandbox)
                assert pem(authority) == second["certificate"]
                assert await line.seen(plain) == []
