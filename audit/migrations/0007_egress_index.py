"""Find what is recorded of a tenant's traffic without a look at everything else it did."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """One index."""

    dependencies = (("audit", "0006_actors_and_verdicts"),)
    operations = (
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("code__in", ("egress.closed", "egress.denied", "egress.dns_denied"))),
                fields=["tenant_id", "-at", "-id"],
                name="audit_event_egress",
            ),
        ),
    )
