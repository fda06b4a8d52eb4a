"""The task queues: settings of Celery as a function of where its broker is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONTROL, WORK = "control", "work"

# Name of the task → seconds between two runs, on the queue `control`.
PERIODIC = {
    "sandboxes.collect_events": 1.0,
    "sandboxes.tell_networks": 1.0,
    "sandboxes.reconcile": 10.0,
    "sandboxes.sweep_reservations": 30.0,
    "sandboxes.erase_tenants": 5.0,
    "audit.seal": 1.0,
    "audit.heartbeat": 60.0,
}
# The same on the queue `work`, for tasks that wait for places outside or take their time.
PERIODIC_WORK = {
    "audit.anchor": 1.0,
    "audit.deliver": 1.0,
    "audit.forget_deliveries": 3600.0,
    "audit.erase_arguments": 3600.0,
    "audit.verify": 3600.0,
    "audit.prune": 21600.0,
}


def schedule() -> dict[str, dict[str, object]]:
    """Return the beat schedule. A run that waited a whole period is dropped: the next one does its work."""
    return {
        name: {"task": name, "schedule": period, "options": {"queue": queue, "expires": period}}
        for queue, tasks in ((CONTROL, PERIODIC), (WORK, PERIODIC_WORK))
        for name, period in tasks.items()
    }


def celery_settings(redis_url: str | None, folder: Path) -> dict[str, object]:
    """Return Celery's settings for a Redis broker, or without one for the embedded broker in a folder.

    Rows are the truth and tasks only say "look again", so a task is acknowledged after it ran (a killed worker's
    tasks come again), and nothing keeps results.
    """
    return {
        "broker_url": redis_url or "filesystem://",
        "broker_transport": None if redis_url else "gatehouse.folderbroker:Transport",
        "broker_transport_options": {} if redis_url else _folder_transport(folder),
        "broker_connection_retry_on_startup": True,
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_default_queue": WORK,
        "task_create_missing_queues": True,
        "task_routes": {name: {"queue": CONTROL} for name in PERIODIC},
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": schedule(),
        # The schedule is code, so nothing about it needs a file.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1.0,
    }


def _folder_transport(folder: Path) -> dict[str, object]:
    return {
        # In and out are the same folder: what one process writes another one reads.
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
        "store_processed": False,
        "polling_interval": 0.2,
    }
