"""The beat schedule: what runs how often, on which queue, and never piles up."""

from __future__ import annotations

from pathlib import Path

from gatehouse import queues
from gatehouse.celery import app


def test_these_tasks_run_again_and_again() -> None:
    assert {name: entry["schedule"] for name, entry in queues.schedule().items()} == {
        "sandboxes.collect_events": 1.0,
        "sandboxes.tell_networks": 1.0,
        "sandboxes.reconcile": 10.0,
        "sandboxes.sweep_reservations": 30.0,
        "sandboxes.erase_tenants": 5.0,
        "audit.seal": 1.0,
        "audit.heartbeat": 60.0,
        "audit.anchor": 1.0,
        "audit.deliver": 1.0,
        "audit.forget_deliveries": 3600.0,
        "audit.erase_arguments": 3600.0,
        "audit.verify": 3600.0,
        "audit.prune": 21600.0,
    }


def test_a_late_run_is_dropped_instead_of_queued_up() -> None:
    for name, entry in queues.schedule().items():
        queue = "work" if name in queues.PERIODIC_WORK else "control"
        assert entry["options"] == {"queue": queue, "expires": entry["schedule"]}


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    assert {*queues.PERIODIC, *queues.PERIODIC_WORK} <= set(app.tasks)


def test_tasks_are_acknowledged_after_they_ran_and_keep_no_results() -> None:
    found = queues.celery_settings(None, Path("/srv/broker"))
    assert (found["task_acks_late"], found["task_reject_on_worker_lost"]) == (True, True)
    assert (found["task_ignore_result"], found["result_backend"]) == (True, None)
    assert (found["accept_content"], found["worker_prefetch_multiplier"]) == (["json"], 1)


def test_the_embedded_broker_stays_in_its_folder() -> None:
    transport = queues.celery_settings(None, Path("/srv/broker"))["broker_transport_options"]
    assert isinstance(transport, dict)
    assert {transport[name] for name in ("data_folder_in", "data_folder_out")} == {"/srv/broker"}
    assert transport["control_folder"] == "/srv/broker/control"
