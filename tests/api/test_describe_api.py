"""The schema says what the API does, needs no key, and is shown on a page of our own files."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.test import Client

from gatehouse.api import schema
from tests.api.rest import PREFIX, Route, problem, routes

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

DOCUMENT: dict[str, Any] = json.loads(schema.document())
OPERATIONS = {
    "activate_tenant add_member change_role create_key create_sandbox create_tenant extend_sandbox get_attestation",
    "get_audit_event get_key get_limit_range get_member get_metrics get_node get_operation get_quota get_sandbox",
    "get_template get_tenant kill_sandbox list_audit_events list_keys list_members list_nodes list_operations",
    "list_sandbox_events list_sandboxes list_templates list_tenants me offboard_tenant open_sandbox pause_sandbox",
    "remove_member resume_sandbox revoke_key set_limit_range set_quota suspend_tenant",
    "list_webhooks create_webhook get_webhook change_webhook delete_webhook rotate_webhook_secret test_webhook",
    "list_webhook_deliveries retry_webhook_delivery get_argument_copies set_argument_copies open_arguments",
    "get_risk get_risk_policy set_risk_policy list_risk_suppressions create_risk_suppression delete_risk_suppression",
    "list_verdicts override_verdict",
    "execute get_execution list_executions set_network",
    "list_network_policies create_network_policy get_network_policy replace_network_policy delete_network_policy",
    "list_network_policy_versions check_network_policy list_network_bundles set_network_bundle",
    "replay_network_policy draft_network_policy get_network_deny_list set_network_deny_list",
    "get_tenant_network set_tenant_network",
    "issue_scoped_token list_scoped_tokens get_scoped_token revoke_scoped_token void_scoped_tokens",
    "list_services create_service get_service replace_service delete_service",
    "list_secrets create_secret get_secret delete_secret list_secret_versions add_secret_version disable_secret",
    "enable_secret get_vaults",
    "export_audit_events get_audit_event_proof get_audit_chain list_audit_checkpoints",
}


def test_the_schema_is_valid_and_complete() -> None:
    said = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=said)
    assert "openapi: 3.1.0" in said.getvalue()


def test_the_names_of_the_operations_stay() -> None:
    found = {operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()}
    assert found == set(" ".join(OPERATIONS).split())


@pytest.mark.parametrize("route", routes(), ids=str)
def test_every_route_is_described_with_its_errors(route: Route) -> None:
    operation = DOCUMENT["paths"][PREFIX + route.path][route.method]
    answers = operation["responses"]
    assert {"400", "401", "403", "405", "429", "500", "503"} <= set(answers)
    assert ("404" in answers) == bool(route.parameters)
    assert answers["401"] == {"$ref": "#/components/responses/Problem401"}
    assert operation["summary"]
    assert {"apiKey": []} in operation["security"]


def test_the_schema_needs_no_key_and_no_database(alice: Caller, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        answer = Client().get("/api/schema")

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/vnd.oai.openapi+json")
    assert answer.json()["info"]["title"] == "Gatehouse"
    assert alice.tenant.pk.hex not in answer.content.decode()
    assert all(path.startswith(PREFIX) for path in answer.json()["paths"])


def test_the_page_loads_only_our_files_and_no_inline_script(db: None) -> None:
    client = Client()
    page = client.get("/api/docs")

    assert page.status_code == 200
    assert "script-src 'self'" in page["Content-Security-Policy"]
    text = page.content.decode()
    assert re.findall(r"<script(?![^>]* src=)|<style|style=|\son\w+=", text) == []
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(sources) == 5
    for source in sources:
        assert source.startswith("/"), source
        assert client.get(source.replace("&amp;", "&")).status_code == 200, source


def test_other_paths_below_api_are_problems(db: None) -> None:
    for path in ("/api", "/api/", "/api/v1/", "/api/v1/nowhere", "/api/v2/sandboxes"):
        answer: Any = Client().get(path)
        assert answer.status_code == 404
        if path != "/api":
            assert problem(answer)["code"] == "not_found"
