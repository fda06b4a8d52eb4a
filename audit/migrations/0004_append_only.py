"""Let the database refuse changes of the ledger, and queue the events that were there before it for their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import migrations

from audit import appendonly

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def _name_sandboxes(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    editor.execute("UPDATE audit_event SET sandbox_id = object_id WHERE object_type = 'sandbox'")


def _install(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    editor.execute("INSERT INTO audit_unsealed (event_id) SELECT id FROM audit_event ORDER BY at, id")
    appendonly.install(editor.connection)


def _remove(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    appendonly.remove(editor.connection)
    editor.execute("DELETE FROM audit_unsealed")


class Migration(migrations.Migration):
    """Append-only from here on."""

    dependencies = (("audit", "0003_ledger"),)
    operations = (
        migrations.RunPython(_name_sandboxes, migrations.RunPython.noop),
        migrations.RunPython(_install, _remove),
    )
