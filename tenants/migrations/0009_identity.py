"""Keep the keys that sign workload identity tokens."""

from __future__ import annotations

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    """Keys of the issuer."""

    dependencies = (("tenants", "0008_scoped_tokens"),)

    operations = (
        migrations.CreateModel(
            name="IdentityKey",
            fields=[
                ("id", models.CharField(editable=False, max_length=64, primary_key=True, serialize=False)),
                ("public", models.JSONField(editable=False)),
                ("private", models.TextField(editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("signs_from", models.DateTimeField(editable=False)),
                ("published_until", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={"ordering": ("-signs_from", "id")},
        ),
    )
