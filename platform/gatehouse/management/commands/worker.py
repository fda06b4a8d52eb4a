"""`manage.py worker`: the tasks that run beside the requests."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from celery.beat import Service
from celery.signals import worker_shutting_down
from celery.worker.consumer import Consumer
from django.core.management.base import BaseCommand

from gatehouse.celery import app
from gatehouse.queues import CONTROL, WORK
from sandboxes.node import linux

if TYPE_CHECKING:
    from argparse import ArgumentParser

# Threads: tasks wait for the node and the database, they compute little.
_THREADS = {CONTROL: 4, WORK: 8}
_CLOCK_STEP_S = 1
_LOOK_UP_S = 0.2
# They tell of every task of every second; tasks themselves say what they changed.
_CHATTY = ("celery.beat", "celery.worker.strategy", "celery.app.trace")


class PromptConsumer(Consumer):
    """Looks up from an empty queue five times a second, where Celery's own would see a stop only after seconds."""

    def connect(self) -> Any:
        """Connect to the broker with shorter waits."""
        connection = super().connect()  # type: ignore[no-untyped-call]
        drain = connection.drain_events
        connection.drain_events = lambda timeout=None, **options: drain(timeout=_LOOK_UP_S, **options)
        return connection


class Command(BaseCommand):
    """Runs the pool `control` with the clock in this process and the pool `work` in a child."""

    help = "Run background tasks: reconcile, collect events, sweep reservations, and long work in a pool of its own."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the one pool to run, for installations that start them apart."""
        parser.add_argument("--pool", choices=(CONTROL, WORK), help="run only this pool; the clock goes with control")

    def handle(self, *args: object, pool: str | None, **options: object) -> None:
        """Work until SIGTERM; running tasks are finished first."""
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        child = _fork_work_pool() if pool is None else None
        if pool != WORK:
            threading.Thread(target=_run_clock, name="clock", daemon=True).start()
        try:
            run_pool(pool or CONTROL)
        finally:
            if child is not None:
                _stop(child)
                os.waitpid(child, 0)


def _run_clock() -> None:
    """Send the periodic tasks for as long as the process lives. Without a clock the process is worth nothing."""
    try:
        Service(app, max_interval=_CLOCK_STEP_S, scheduler_cls=app.conf.beat_scheduler).start()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def run_pool(name: str) -> None:
    """Take tasks of one queue until SIGTERM."""
    worker = app.Worker(
        pool="threads",
        concurrency=_THREADS[name],
        queues=[name],
        hostname=f"{name}@gatehouse",
        consumer_cls=PromptConsumer,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()


def _fork_work_pool() -> int:
    """Run the pool `work` in a child that shares this process's code; neither lives without the other."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        linux.set_parent_death_signal(signal.SIGTERM)
        if os.getppid() == parent:
            run_pool(WORK)
        os._exit(0)

    worker_shutting_down.connect(lambda **_: _stop(child), weak=False)
    # The supervisor starts both again; half a worker would look healthy and do half the work.
    signal.signal(signal.SIGCHLD, lambda _number, _frame: os.kill(parent, signal.SIGTERM))
    return child


def _stop(child: int) -> None:
    # A consumer that fails ends without the signal of a shutdown.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)
