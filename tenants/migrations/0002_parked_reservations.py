# ruff: noqa: RUF012  (generated)

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="reservation",
            name="tenants_reservation_state",
        ),
        migrations.AddField(
            model_name="reservation",
            name="parked_cpu_milli",
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="reservation",
            name="parked_request_cpu_milli",
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="reservation",
            name="parked_sandboxes",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="tenant",
            name="state_changed_at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
        ),
        migrations.AlterField(
            model_name="reservation",
            name="state",
            field=models.CharField(
                choices=[("reserved", "Reserved"), ("committed", "Committed"), ("parked", "Parked")],
                default="reserved",
                max_length=16,
            ),
        ),
        migrations.AddConstraint(
            model_name="reservation",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["reserved", "committed", "parked"])), name="tenants_reservation_state"
            ),
        ),
    ]
