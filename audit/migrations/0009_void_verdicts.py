"""Let a threshold void the scoped tokens of a sandbox."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """A threshold, and what it asks for."""

    dependencies = (("audit", "0008_network_verdicts"),)

    operations = (
        migrations.AddField(
            model_name="riskpolicy",
            name="void_at",
            field=models.PositiveSmallIntegerField(default=None, null=True),
        ),
        migrations.AlterField(
            model_name="verdict",
            name="action",
            field=models.CharField(
                choices=[
                    ("flag", "Flag"),
                    ("pause", "Pause the sandbox"),
                    ("cut", "Cut its network"),
                    ("void", "Void its scoped tokens"),
                ],
                max_length=8,
            ),
        ),
    )
