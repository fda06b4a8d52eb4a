"""What the worker does again and again. Rows are the truth: a task only says "look again", so any may be lost."""

from __future__ import annotations

import structlog
from celery import shared_task

from audit import sealing
from corekit.errors import GatehouseError
from sandboxes import events, executionrows, networks, offboarding, revocation, verdicts
from sandboxes import reconcile as reconciling
from sandboxes.models import Sandbox
from sandboxes.node_client import local_node
from sandboxes.states import LIVE
from tenants import quota
from tenants.broker import actions as token_actions
from tenants.broker import redeeming
from tenants.networks import following

logger = structlog.get_logger("sandboxes.tasks")

ERASING_S = 3.0
"""For how long a run works on erasing a tenant, so that it holds up nothing else; the next one goes on."""
LEAK_AGE_S = 60
"""How old a reservation without a live sandbox must be before it is taken for a leak."""


@shared_task(name="sandboxes.collect_events")  # type: ignore[untyped-decorator]
def collect_events() -> None:
    """Commit the node's new events and repeat recent revocations. Each second."""
    client = local_node()
    try:
        revocation.repeat_recent(client)
        if events.collect(client):
            sealing.seal()
    except GatehouseError as error:
        logger.warning("collect_failed", error=error.code)
    # Right after the events that ask for it, and each second in any case.
    verdicts.carry_out()


@shared_task(name="sandboxes.tell_networks")  # type: ignore[untyped-decorator]
def tell_networks() -> None:
    """Tell the node what sandboxes may reach, where it does not know it yet. Each second."""
    if left := following.follow_left():
        logger.warning("network_changes_followed", changes=left)
    if told := networks.tell_all(local_node()):
        logger.info("networks_told", sandboxes=told)


@shared_task(name="sandboxes.reconcile")  # type: ignore[untyped-decorator]
def reconcile() -> None:
    """Make the rows and the node agree. Each 10 s."""
    try:
        outcome = reconciling.reconcile(local_node())
    except GatehouseError as error:
        logger.warning("reconcile_failed", error=error.code)
        return
    if outcome.ended or outcome.stopped:
        logger.info("reconciled", ended=outcome.ended, stopped=outcome.stopped, adjusted=outcome.adjusted)
    if overdue := executionrows.end_overdue():
        logger.warning("executions_ended", executions=overdue)


@shared_task(name="sandboxes.sweep_reservations")  # type: ignore[untyped-decorator]
def sweep_reservations() -> None:
    """Release what dead processes hold: reservations and uses of tokens; forget old output and tokens. Each 30 s."""
    live = list(Sandbox.everywhere().filter(state__in=LIVE).values_list("pk", flat=True))
    released = quota.sweep(live, older_than_s=LEAK_AGE_S)
    if released:
        logger.warning("reservations_swept", sandboxes=released)
    executionrows.forget_output()
    if lost := redeeming.settle_lost():
        logger.warning("uses_of_tokens_settled", uses=lost)
    token_actions.forget_old()


@shared_task(name="sandboxes.erase_tenants")  # type: ignore[untyped-decorator]
def erase_tenants() -> None:
    """Go on with the tenants that are to be erased. Each 5 s."""
    offboarding.go_on(local_node(), budget_s=ERASING_S)
