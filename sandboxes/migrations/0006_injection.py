"""Keep what is put into the requests of each sandbox: header rules, workload identities, placeholders."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """What is put into the requests of a sandbox."""

    dependencies = (("sandboxes", "0005_networks"),)

    operations = (
        migrations.AddField(
            model_name="sandbox",
            name="injected",
            field=models.JSONField(blank=True, default=dict),
        ),
    )
