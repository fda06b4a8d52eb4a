"""Find an actor's events as fast as a sandbox's, and hold the longest verdict on a chain."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """One index, and a longer column."""

    dependencies = (("audit", "0005_producer_events"),)
    operations = (
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["actor_id", "-at", "-id"], name="audit_event_actor"),
        ),
        migrations.AlterField(
            model_name="chain",
            name="verified_as",
            field=models.CharField(blank=True, default="", max_length=32),
        ),
    )
