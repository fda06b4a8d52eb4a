"""Count the events of each producer, so that heartbeats can tell how many there are."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """One more column."""

    dependencies = (("audit", "0004_append_only"),)
    operations = (migrations.AddField(model_name="producer", name="events", field=models.BigIntegerField(default=0)),)
